"""A small OpenAI-compatible server in this process that fails on command."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODELS = {"data": [{"id": "fake", "max_model_len": 1000}, {"id": "tuned"}]}


def reply(body, *, token_ids=True):
    """A full answer: the text of sample i is "<question>:<seed + i>", so order and seeds show."""
    question = body["messages"][-1]["content"]
    choices = []
    for i in range(body.get("n", 1)):
        choice = {
            "index": i,
            "message": {"role": "assistant", "content": f"{question}:{body['seed'] + i}"},
            "finish_reason": "stop",
        }
        if body.get("logprobs"):
            choice["logprobs"] = {
                "content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]
            }
        if body.get("return_token_ids") and token_ids:
            choice["token_ids"] = [11, 12]
        choices.append(choice)
    usage = {"prompt_tokens": 5, "completion_tokens": 2 * len(choices)}
    return {"choices": choices, "usage": usage}


class Drop:
    """Close the connection after `sent` bytes of a longer answer."""

    def __init__(self, sent=0):
        self.sent = sent


class Late:
    """Answer after `wait_s` seconds."""

    def __init__(self, wait_s):
        self.wait_s = wait_s


class FakeServer:
    """`answer(body, number)` says what becomes of the number-th chat request.

    It gives a dict (sent with 200), (status, dict), bytes (sent as they are), `Drop` or `Late`.
    """

    def __init__(self, answer=None, *, tokenize=None, models=MODELS):
        self.answer = answer or (lambda body, number: reply(body))
        self.tokenize, self.models = tokenize, models
        self.bodies = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()

    def __enter__(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # head and body in one packet: else each waits for an acknowledgement

            def do_GET(self):
                server._send(self, server.models if self.path.endswith("/models") else (404, {}))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/tokenize":
                    found = server.tokenize(body) if server.tokenize else (404, {"detail": "Not Found"})
                    return server._send(self, found)
                server._chat(self, body)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _chat(self, handler, body):
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self._send(handler, self.answer(body, number), body)
        finally:
            with self._lock:
                self.in_flight -= 1

    def _send(self, handler, answer, body=None):
        if isinstance(answer, Late):
            time.sleep(answer.wait_s)
            answer = reply(body)
        status, answer = answer if isinstance(answer, tuple) else (200, answer)
        if isinstance(answer, Drop):
            full = json.dumps(reply(body)).encode()
            handler.close_connection = True
            if answer.sent:
                self._head(handler, 200, len(full))
                handler.wfile.write(full[: answer.sent])
            return
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        try:
            self._head(handler, status, len(data))
            handler.wfile.write(data)
        except BrokenPipeError:
            pass  # the client gave up waiting, which is what some tests are about

    def _head(self, handler, status, length):
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(length))
        handler.end_headers()
