// Talks to the server: single requests by fetch, jobs through one WebSocket.

import { notice } from "./dom.js";

async function answer(response) {
  if (response.status === 401) location.reload();
  const content = response.headers.get("content-type")?.startsWith("application/json")
    ? await response.json()
    : { error: await response.text() };
  if (!response.ok) throw new Error(content.error ?? `the server answered ${response.status}`);
  return content;
}

export const get = async (path, query = {}) => answer(await fetch(`${path}?${new URLSearchParams(query)}`));

export const post = async (path, order, signal) =>
  answer(
    await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(order),
      signal,
    }),
  );

/** The tab's socket. Closing the tab closes it, and that stops the tab's jobs. */
class Session {
  constructor() {
    this.listeners = {};
    this.socket = null;
    this.jobs = 0;
  }

  /** Listen to the events of one kind of job; one listener per kind. */
  listen(kind, listener) {
    this.listeners[kind] = listener;
  }

  /** A name for the next job of a kind, which tells its events from those of earlier jobs. */
  name(kind) {
    return `${kind}-${++this.jobs}`;
  }

  start(kind, job, order) {
    return this.send({ do: "start", kind, job, order });
  }

  async send(message) {
    await this.open();
    this.socket.send(JSON.stringify(message));
  }

  open() {
    if (this.opening) return this.opening;
    this.opening = new Promise((resolve, reject) => {
      const socket = new WebSocket(
        `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/session`,
      );
      socket.onopen = () => resolve();
      socket.onmessage = (event) => this.hear(JSON.parse(event.data));
      socket.onclose = () => {
        this.opening = null;
        reject(new Error("the server does not answer"));
        for (const listener of Object.values(this.listeners)) listener({ event: "lost" });
      };
      this.socket = socket;
    });
    return this.opening;
  }

  hear(news) {
    if (news.event === "refused") notice(news.error);
    this.listeners[news.kind]?.(news);
  }
}

export const session = new Session();

/** Whether a job in this state is not at its end. */
export const isBusy = (state) => ["starting", "waiting", "running", "paused"].includes(state);
