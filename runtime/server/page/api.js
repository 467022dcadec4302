// The server's API. URLs are relative, so that the page works under any base path.

/** Names of the response headers with milliseconds, and what the page calls them. */
const TIMES = {
  "x-total-time": "total",
  "x-tokenization-time": "tokenization",
  "x-queue-time": "queue",
  "x-inference-time": "run",
};

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Return the names of the models and of their tasks: [{id, tasks}]. */
export async function models(key) {
  return (await call("v1/models", undefined, key)).body.data;
}

/** Send a body, or get a page without one. Returns the answer's body, and milliseconds by name. */
export async function call(path, body, key) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const method = body === undefined ? "GET" : "POST";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, message(answer) ?? `the server answered ${response.status}`);
  const times = Object.entries(TIMES).map(([header, name]) => [name, response.headers.get(header)]);
  return { body: answer, times: Object.fromEntries(times.filter(([, value]) => value !== null)) };
}

function message(answer) {
  return answer?.error?.message ?? (typeof answer?.error === "string" ? answer.error : undefined);
}
