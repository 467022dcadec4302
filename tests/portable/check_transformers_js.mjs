// Load bundles with transformers.js, from local files alone: node check_transformers_js.mjs FOLDER

import assert from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { AutoModel, env, pipeline, Tensor } from "@huggingface/transformers";

const folder = process.argv[2];
const TOLERANCE = 1e-4;
env.allowRemoteModels = false;
env.localModelPath = folder;

// Where the graph is at the top of the bundle, transformers.js must be told: it looks in the folder `onnx`.
const options = (expected) => (expected.file === "model.onnx" ? { subfolder: "" } : {});

function close(actual, expected, what) {
  assert.strictEqual(actual.length, expected.length, what);
  actual.forEach((value, index) =>
    assert.ok(Math.abs(value - expected[index]) <= TOLERANCE, `${what} [${index}]: ${value}, not ${expected[index]}`),
  );
}

// Run the graph on the token ids of eager transformers, and compare every output where the mask is 1.
async function checkOutputs(name, expected) {
  const model = await AutoModel.from_pretrained(name, { dtype: "fp32", ...options(expected) });
  const mask = expected.inputs.attention_mask;
  const shape = [mask.length, mask[0].length];
  const inputs = Object.entries(expected.inputs).map(([input, rows]) => [
    input,
    new Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), shape),
  ]);
  const outputs = await model(Object.fromEntries(inputs));
  for (const [output, rows] of Object.entries(expected.outputs)) {
    const actual = outputs[output].tolist();
    const isTokenwise = Array.isArray(rows[0]) && rows[0].length === shape[1];
    rows.forEach((row, text) => {
      const kept = (values) => (isTokenwise ? values.filter((_, token) => mask[text][token]) : values).flat();
      close(kept(actual[text]), kept(row), `${name} ${output}`);
    });
  }
}

// Run the pipeline of the task on texts, with the tokenizer of transformers.js.
async function checkPipeline(name, expected) {
  const run = await pipeline(expected.task, name, { dtype: "fp32", ...options(expected) });
  for (const [index, text] of expected.texts.entries()) {
    const wanted = expected.results[index];
    const what = `${name}: ${JSON.stringify(text)}`;
    if (expected.task === "feature-extraction") {
      const embedding = await run(text, { pooling: "mean", normalize: true });
      close([...embedding.data], wanted, what);
    } else if (expected.task === "question-answering") {
      const { answer, score } = await run(...text);
      assert.strictEqual(answer, wanted.answer, what);
      close([score], [wanted.score], what);
    } else {
      const results = await run(text, { top_k: null, ignore_labels: [] });
      assert.deepStrictEqual(
        results.map((result) => result.label ?? result.entity),
        wanted.map((result) => result.label),
        what,
      );
      close(results.map((result) => result.score), wanted.map((result) => result.score), what);
    }
  }
}

for (const [name, expected] of Object.entries(JSON.parse(readFileSync(join(folder, "expected.json"), "utf-8")))) {
  await checkOutputs(name, expected);
  await checkPipeline(name, expected);
  console.log(`transformers.js ${env.version}: ${name} (${expected.file}) gives the results of eager transformers`);
}
