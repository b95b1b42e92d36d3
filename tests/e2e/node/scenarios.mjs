// What the official Node client makes of the gateway: `node scenarios.mjs NAME '{"url": …}'` prints it as JSON.
import { createRequire } from "node:module";

const [name, argument] = process.argv.slice(2);
const told = JSON.parse(argument);
const OpenAI = createRequire(`${told.modules}/`)("openai");
const client = new OpenAI({ baseURL: `${told.url}/v1`, apiKey: told.key, maxRetries: 0, timeout: 30_000 });
const model = told.model;
const messages = [{ role: "user", content: "hello" }];
const tool = { type: "function", function: { name: "forecast", parameters: told.schema } };
const sound = () => new File([Buffer.from(told.sound ?? "", "base64")], "talk.wav");

const scenarios = {
  async chat() {
    const whole = await client.chat.completions.create({ model, messages });
    const stream = await client.chat.completions.create({
      model, messages, stream: true, stream_options: { include_usage: true },
    });
    let streamed = "";
    let usage = null;
    for await (const event of stream) {
      streamed += event.choices[0]?.delta?.content ?? "";
      usage = event.usage ?? usage;
    }
    return { whole: whole.choices[0].message.content, streamed, usage };
  },

  async tools() {
    const asked = await client.chat.completions.create({ model, messages, tools: [tool] });
    const streamed = await client.chat.completions.stream({ model, messages, tools: [tool] }).finalMessage();
    const read = (message) => JSON.parse(message.tool_calls[0].function.arguments);
    return { asked: read(asked.choices[0].message), streamed: read(streamed) };
  },

  async structured() {
    const response_format = { type: "json_schema", json_schema: { name: "forecast", schema: told.schema, strict: true } };
    const chat = await client.chat.completions.create({ model, messages, response_format });
    const format = { type: "json_schema", name: "forecast", schema: told.schema };
    const response = await client.responses.create({ model, input: "hello", text: { format } });
    return [chat.choices[0].message.content, response.output_text].map((text) => JSON.parse(text));
  },

  async responses() {
    const made = await client.responses.create({ model, input: "hello" });
    const found = await client.responses.retrieve(made.id);
    await client.responses.delete(made.id);
    const gone = await client.responses.retrieve(made.id).then(() => "found", (error) => error.constructor.name);
    const kinds = [];
    for await (const event of client.responses.stream({ model, input: "hello" })) kinds.push(event.type);
    return { made: made.output_text, found: found.output_text, gone, last: kinds.at(-1) };
  },

  async uploads() {
    const heard = await client.audio.transcriptions.create({ model, file: sound() });
    let streamed = "";
    for await (const event of await client.audio.transcriptions.create({ model, file: sound(), stream: true })) {
      streamed += event.delta ?? "";
    }
    const edited = await client.images.edit({ model, prompt: "an owl", image: [sound(), sound()] });
    const files = edited.received.parts.filter((part) => part.filename);
    return { heard: heard.text, streamed, digests: files.map((part) => part.sha256) };
  },

  async binary() {
    const speech = await client.audio.speech.create({ model, voice: "alloy", input: "hello" });
    const picture = await client.images.generate({ model, prompt: "a fox" });
    const starts = [Buffer.from(await speech.arrayBuffer()), Buffer.from(picture.data[0].b64_json, "base64")];
    return starts.map((bytes) => bytes.subarray(0, 4).toString("latin1"));
  },

  async failure() {
    const settings = { headers: told.headers, maxRetries: told.retries ?? 0, timeout: told.timeout_ms ?? 30_000 };
    const began = Date.now();
    const outcome = { said: 0 };
    try {
      const asked = { model: told.model, messages, stream: told.stream ?? false };
      const answer = await client.withOptions({ apiKey: told.key }).chat.completions.create(asked, settings);
      if (told.stream) for await (const event of answer) outcome.said += event ? 1 : 0;
      outcome.kind = "answered";
    } catch (error) {
      outcome.kind = error.constructor.name;
      outcome.message = error.message;
      outcome.status = error.status ?? null;
    }
    return { ...outcome, took_ms: Date.now() - began };
  },

  async leave() {
    const asked = { model, messages, stream: true };
    const stream = await client.chat.completions.create(asked, { headers: told.headers });
    for await (const event of stream) {
      if (event) break;
    }
    await new Promise((resolve) => setTimeout(resolve, 2_000)); // it is the stream that ends, not the process
    return "left";
  },
};

process.stdout.write(JSON.stringify(await scenarios[name]()));
