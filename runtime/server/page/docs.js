// The page at /docs: the routes of openapi.json, with the fields of their bodies and a command for each.

import { element } from "./views.js";

const WORDS = { string: "a text", integer: 1, number: 1, boolean: true };

const description = await (await fetch("openapi.json")).json();
const schemas = description.components.schemas;
const resolve = (schema) => ("$ref" in schema ? schemas[schema.$ref.split("/").pop()] : schema);

/** The type of a schema as text, such as "string | [integer]". */
function typeOf(schema) {
  if ("$ref" in schema) return typeOf(resolve(schema));
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(typeOf).join(", ")}]`;
  if (schema.type === "array") return `[${schema.items ? typeOf(schema.items) : "any"}]`;
  if (schema.properties) return `{${Object.keys(schema.properties).join(", ")}}`;
  return schema.type ?? "any";
}

/** A value that fits a schema: the first choice, and of objects the fields that they need. */
function sampleOf(schema) {
  const found = resolve(schema);
  if (found.anyOf) return sampleOf(found.anyOf[0]);
  if (found.enum) return found.enum[0];
  if (found.type === "array") return found.items ? [sampleOf(found.items)] : [];
  if (!found.properties) return WORDS[found.type] ?? {};
  return Object.fromEntries((found.required ?? []).map((name) => [name, sampleOf(found.properties[name])]));
}

function fieldsOf({ properties = {}, required = [] }) {
  return element("dl", { className: "fields" }, ...Object.entries(properties).flatMap(([name, schema]) => {
    const isNeeded = required.includes(name);
    const start = isNeeded ? "required" : JSON.stringify(schema.default ?? null);
    const note = element("small", {}, isNeeded ? start : `default ${start}`);
    return [element("dt", {}, name), element("dd", {}, `${typeOf(schema)} `, note)];
  }));
}

/** A command for a shell. */
function commandOf(path, body, needsKey) {
  const address = new URL(`.${path}`, document.baseURI);
  const quoted = body && JSON.stringify(sampleOf(body)).replaceAll("'", "'\\''");
  const key = needsKey ? ' --header "Authorization: Bearer $ADMIN_KEY"' : "";
  return `curl ${decodeURI(address)}${key}${quoted ? ` --json '${quoted}'` : ""}`;
}

function route(path, method, operation) {
  const body = operation.requestBody?.content["application/json"].schema;
  const result = operation.responses["200"].content?.["application/json"].schema;
  return element("details", { name: "route" },
    element("summary", {}, element("code", {}, `${method.toUpperCase()} ${path}`), ` ${operation.summary}`),
    ...(body ? [fieldsOf(resolve(body))] : []),
    ...(result ? [element("p", {}, "Result: ", element("code", {}, typeOf(result)))] : []),
    element("pre", { tabIndex: 0 }, commandOf(path, body, "security" in operation)));
}

document.getElementById("routes").append(...Object.entries(description.paths).flatMap(([path, operations]) =>
  Object.entries(operations).map(([method, operation]) => route(path, method, operation))));
