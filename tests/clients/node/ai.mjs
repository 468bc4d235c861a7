// usage: PROVIDER=openai|anthropic node ai.mjs ORIGIN MODEL SCENARIO...
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { collect, failure, model, origin, run, weather } from "./scenarios.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const settings = { name: "gateway", apiKey: "k", baseURL: `${origin}/v1` };
const chosen =
  process.env.PROVIDER === "anthropic"
    ? createAnthropic(settings)(model)
    : createOpenAICompatible({
        ...settings,
        includeUsage: true,
        supportsStructuredOutputs: true,
      })(model);
const common = { model: chosen, maxRetries: 0, onError() {} };
const prompt = (name) => `scenario:${name}`;
const tools = {
  weather: tool({
    description: weather.description,
    inputSchema: jsonSchema(weather.schema),
    execute: async ({ city }) => `12 degrees in ${city}`,
  }),
};
const step = ({ text, toolCalls, toolResults, finishReason, usage }) => ({
  text,
  calls: toolCalls.map(({ toolCallId, toolName, input }) => [toolCallId, toolName, input]),
  results: toolResults.map(({ toolCallId, output }) => [toolCallId, output]),
  finishReason,
  usage: [usage.inputTokens, usage.outputTokens],
});
const refused = async (name) => {
  const told = await failure(
    () => generateText({ ...common, prompt: prompt(name) }),
    "statusCode",
    "message",
    "isRetryable",
  );
  return told;
};

await run({
  text: async (name) => step(await generateText({ ...common, prompt: prompt(name) })),
  stream: async (name) => {
    const result = streamText({ ...common, prompt: prompt(name) });
    const parts = await collect(result.fullStream);
    const text = parts.filter((p) => p.type === "text-delta").map((p) => p.text);
    return { kinds: [...new Set(parts.map((p) => p.type))], text: text.join("") };
  },
  calls: async (name) => {
    const options = { ...common, prompt: prompt(name), tools, stopWhen: stepCountIs(3) };
    return (await generateText(options)).steps.map(step);
  },
  streamed_calls: async (name) => {
    const options = { ...common, prompt: prompt(name), tools, stopWhen: stepCountIs(3) };
    return (await streamText(options).steps).map(step);
  },
  parsed: async (name) => {
    const schema = z.object({ name: z.string(), people: z.number() });
    return (await generateObject({ ...common, prompt: prompt(name), schema })).object;
  },
  e400: refused,
  e429: refused,
  e500: refused,
});
