#!/usr/bin/env python3
"""llamacpp.py MODEL.gguf PORT [--slots N] [--http-threads N]: the real llama.cpp HTTP server; runs until SIGTERM."""
import argparse
import signal
import sys
import time

import xllamacpp


def parameters(args):
    p = xllamacpp.CommonParams()
    p.model.path = args.model
    p.model_alias = {args.alias} if not isinstance(p.model_alias, str) else args.alias
    p.hostnames = ["127.0.0.1"]
    p.port = args.port
    p.n_parallel = args.slots
    p.n_ctx = args.context
    p.endpoint_metrics = p.endpoint_slots = p.endpoint_props = True
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
    p.n_threads_http = args.http_threads
    p.warmup = False
    p.offline = True
    # The same draws for every request: a model of random weights ends one answer in ten at once, and clients differ
    # about empty ones.
    p.sampling.seed = 1
    p.use_jinja = True
    if hasattr(p, "fit_params"):
        p.fit_params = False
    return p


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("port", type=int)
    ap.add_argument("--slots", type=int, default=4)
    ap.add_argument("--context", type=int, default=8192)
    ap.add_argument("--alias", default="tiny")
    ap.add_argument("--http-threads", type=int, default=32)
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = xllamacpp.Server(parameters(args))
    print(f"listening {server.listening_address}", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
