import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { ask, collect, failure, model, origin, run, weather } from "./scenarios.mjs";

const client = new OpenAI({ apiKey: "k", baseURL: `${origin}/v1`, maxRetries: 0 });
const tools = [
  {
    type: "function",
    function: {
      name: weather.name,
      description: weather.description,
      parameters: weather.schema,
      strict: true,
    },
  },
];
const City = z.object({ name: z.string(), people: z.number() });
const create = (name, options) =>
  client.chat.completions.create({ model, messages: ask(name), ...options });
const refused = (name) =>
  failure(() => create(name, {}), "status", "message", "code", "param", "type");

async function accumulated(name) {
  const runner = client.chat.completions.stream({
    model,
    messages: ask(name),
    tools,
    stream_options: { include_usage: true },
  });
  const final = await runner.finalChatCompletion();
  return { final, usage: await runner.totalUsage() };
}

await run({
  text: (name) => create(name, { seed: 3 }),
  choices: (name) => create(name, { n: 2, logprobs: true, top_logprobs: 1 }),
  stream: async (name) => collect(await create(name, { stream: true })),
  calls: accumulated,
  parsed: async (name) => {
    const answer = await client.chat.completions.parse({
      model,
      messages: ask(name),
      response_format: zodResponseFormat(City, "city"),
    });
    return answer.choices[0].message;
  },
  e400: refused,
  e404: refused,
  e422: refused,
  e429: refused,
  e500: refused,
  retried: async (name) => {
    const patient = client.withOptions({ maxRetries: 2 });
    return patient.chat.completions.create({ model, messages: ask(name) });
  },
});
