"""How one call or several serve a request; each strategy sees only the calls it is given."""
