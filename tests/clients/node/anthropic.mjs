import Anthropic from "@anthropic-ai/sdk";

import { ask, collect, failure, model, origin, run, weather } from "./scenarios.mjs";

const client = new Anthropic({ apiKey: "k", baseURL: origin, maxRetries: 0 });
const tools = [
  { name: weather.name, description: weather.description, input_schema: weather.schema },
];
const create = (name, options) =>
  client.messages.create({ model, max_tokens: 50, messages: ask(name), ...options });
const refused = async (name) => {
  const told = await failure(() => create(name, {}), "status", "error");
  delete told.error?.request_id;
  return told;
};

await run({
  text: (name) => create(name, { system: "Be brief." }),
  stream: async (name) => collect(await create(name, { stream: true })),
  calls: async (name) => {
    const stream = client.messages.stream({
      model,
      max_tokens: 5000,
      messages: ask(name),
      tools,
      thinking: { type: "enabled", budget_tokens: 1024 },
    });
    const kinds = (await collect(stream)).map((event) => event.type);
    return { kinds, final: await stream.finalMessage() };
  },
  e400: refused,
  e404: refused,
  e429: refused,
  e500: refused,
  e529: refused,
  retried: (name) =>
    client
      .withOptions({ maxRetries: 2 })
      .messages.create({ model, max_tokens: 50, messages: ask(name) }),
});
