// Runs each scenario of one SDK and prints what the SDK made of the answers, one JSON object.
// usage: node openai.mjs ORIGIN MODEL SCENARIO...

export const [origin, model, ...wanted] = process.argv.slice(2);

export const ask = (scenario) => [{ role: "user", content: `scenario:${scenario}` }];

export const weather = {
  name: "weather",
  description: "Weather of a city",
  schema: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};

export async function collect(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

export async function failure(act, ...fields) {
  try {
    await act();
  } catch (error) {
    return Object.fromEntries(["name", "constructor", ...fields].map((f) => [f, show(error, f)]));
  }
  throw new Error("nothing was raised");
}

const show = (error, field) =>
  field === "constructor" ? error.constructor.name : (error[field] ?? null);

export async function run(scenarios) {
  const results = {};
  for (const name of wanted.length ? wanted : Object.keys(scenarios)) {
    results[name] = await scenarios[name](name);
  }
  process.stdout.write(JSON.stringify(results));
}
