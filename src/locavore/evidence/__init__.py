"""What has been learned about answers: judged, counted, and set down as data."""
