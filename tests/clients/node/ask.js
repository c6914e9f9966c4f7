// One chat by an official client, with its default retries: node ask.js LIBRARY URL KEY
// Prints what its caller sees, as JSON: the error's class, status, code and message, or "ok".
const { createRequire } = require("node:module");
const installed = createRequire(`${process.env.HEADGATE_CLIENTS}/`);

const messages = [{ role: "user", content: "Hi" }];
const chat = { model: "tiny", max_tokens: 4, messages };

const ask = {
  openai: (baseURL, apiKey) => {
    const { OpenAI } = installed("openai");
    return new OpenAI({ baseURL: `${baseURL}/v1`, apiKey }).chat.completions.create(chat);
  },
  anthropic: (baseURL, apiKey) => {
    const { Anthropic } = installed("@anthropic-ai/sdk");
    return new Anthropic({ baseURL, apiKey }).messages.create(chat);
  },
};

const [library, url, key] = process.argv.slice(2);
ask[library](url, key).then(
  () => console.log(JSON.stringify({ error: "ok" })),
  (error) =>
    console.log(
      JSON.stringify({
        error: error.constructor.name,
        status: error.status,
        code: error.code ?? null,
        message: error.message,
      }),
    ),
);
