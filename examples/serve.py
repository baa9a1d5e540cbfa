"""A model behind HTTP, by the standard library alone: POST rows as JSON to /predict.

    python examples/serve.py 8000        # without a port the program asks itself from several threads, and ends
    curl -d '{"rows": [[5.1, 3.5], [6.7, 3.1]]}' localhost:8000/predict

Each request has a thread of its own, and predictions of one network run side by side.
"""

import json
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

import fastbp

t = np.arange(300) % 2
x = (np.random.default_rng(0).normal(size=(300, 2)) + 3 * t[:, None]).astype(np.float32)
net = fastbp.MLP([2, 16, 2], classes=["low", "high"], seed=0)
fastbp.train(net, x, t, optimizer=fastbp.Adam(lr=0.01), epochs=50, progress=False)


class Predict(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            rows = np.asarray(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"], net.dtype)
            if not np.isfinite(rows).all():  # a network passes NaN on: its label would be the first class
                raise ValueError("rows must be finite")
            probabilities = net.predict_proba(rows)
            code, answer = 200, {"labels": net.classes[probabilities.argmax(axis=1)].tolist()}
            answer["probabilities"] = probabilities.tolist()
        except (KeyError, TypeError, ValueError) as error:
            code, answer = 400, {"error": str(error)}
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *arguments):
        pass


def ask(server, rows):
    url = f"http://127.0.0.1:{server.server_port}/predict"
    with urllib.request.urlopen(url, json.dumps({"rows": rows}).encode()) as answer:
        return json.load(answer)


with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0), Predict) as server:
    if sys.argv[1:]:
        server.serve_forever()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(ask, [server] * 20, x[:20, None].tolist()))
    server.shutdown()
assert [answer["labels"] for answer in answers] == [[label] for label in net.predict(x[:20])]
print(f"{len(answers)} requests answered, such as {answers[0]}")
