#!/usr/bin/env python3
"""sdk_probe.py BASE MODEL [which]: real client SDKs against BASE, a model server or the gateway in front of it.

One PASS or FAIL line a case. What counts is that the lines are the same direct and through the gateway.
"""
import asyncio, os, sys, time
base, model = sys.argv[1].rstrip("/"), sys.argv[2]
only = sys.argv[3] if len(sys.argv) > 3 else ""
os.environ.setdefault("NO_PROXY", "127.0.0.1"); ok = bad = 0
def case(name):
    def deco(f):
        global ok, bad
        if only and only not in name: return f
        t = time.time()
        try:
            r = f(); ok += 1; print(f"PASS {name} {time.time()-t:.2f}s {str(r)[:160]!r}", flush=True)
        except Exception as e:
            bad += 1; print(f"FAIL {name} {time.time()-t:.2f}s {type(e).__name__}: {str(e)[:260]}", flush=True)
        return f
    return deco
TOOL = {"type": "function", "function": {"name": "get_weather", "strict": True, "parameters": {"type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}}, "required": ["city"], "additionalProperties": False}}}
M = [{"role": "user", "content": "hello there"}]
import openai
oc = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0, timeout=60)
X = {"ignore_eos": True}

@case("openai models.list")
def _(): return [m.id for m in oc.models.list()]
@case("openai completions")
def _(): return oc.completions.create(model=model, prompt="hello", max_tokens=4).choices[0].text
@case("openai chat stream+usage")
def _():
    ch = list(oc.chat.completions.create(model=model, messages=M, max_tokens=5, stream=True, stream_options={"include_usage": True}, extra_body=X))
    assert ch[-1].usage.completion_tokens == 5 and not ch[-1].choices; return len(ch)
@case("openai chat n=2 logprobs")
def _():
    r = oc.chat.completions.create(model=model, messages=M, max_tokens=2, n=2, logprobs=True, top_logprobs=3, seed=1)
    assert len(r.choices) == 2 and len(r.choices[0].logprobs.content[0].top_logprobs) == 3; return r.choices[0].finish_reason
@case("openai forced tool call")
def _():
    r = oc.chat.completions.create(model=model, messages=M, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "get_weather"}}, max_tokens=200)
    return r.choices[0].message.tool_calls[0].function.arguments
@case("openai forced tool call stream")
def _():
    s = oc.chat.completions.create(model=model, messages=M, tools=[TOOL], tool_choice="required", max_tokens=200, stream=True)
    d = [c.choices[0].delta.tool_calls for c in s if c.choices and c.choices[0].delta.tool_calls]
    return "".join(t[0].function.arguments or "" for t in d)
@case("openai structured output parse")
def _():
    import pydantic
    class A(pydantic.BaseModel): flag: bool
    return oc.chat.completions.parse(model=model, messages=M, response_format=A, max_tokens=400, temperature=1).choices[0].message.parsed
@case("openai responses")
def _(): return oc.responses.create(model=model, input="hi", max_output_tokens=4).status
@case("openai responses stream")
def _():
    ev = [e.type for e in oc.responses.create(model=model, input="hi", max_output_tokens=4, stream=True)]
    assert ev[0] == "response.created" and ev[-1] in ("response.completed", "response.incomplete"); return ev[-1]
@case("openai embeddings")
def _(): return len(oc.embeddings.create(model=model, input=["a", "b"]).data[0].embedding)
@case("openai with_raw_response + request id")
def _():
    r = oc.chat.completions.with_raw_response.create(model=model, messages=M, max_tokens=2, extra_headers={"X-Request-Id": "rid-1"})
    return dict(r.headers).get("x-request-id"), r.parse().id
@case("openai error mapping 404")
def _():
    try: oc.completions.create(model="nope", prompt="x"); raise AssertionError("no error")
    except openai.NotFoundError as e: return e.status_code, e.body
@case("openai error mapping 400")
def _():
    try: oc.chat.completions.create(model=model, messages=M, max_tokens=10**7); raise AssertionError("no error")
    except openai.BadRequestError as e: return e.status_code, e.body
@case("openai async 8 concurrent streams")
def _():
    async def go():
        a = openai.AsyncOpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
        async def one(i):
            n = 0
            async for c in await a.chat.completions.create(model=model, messages=[{"role": "user", "content": f"hello {i}"}], max_tokens=16, stream=True, extra_body=X): n += 1
            return n
        r = await asyncio.gather(*[one(i) for i in range(8)]); await a.close(); return r
    return asyncio.run(go())
@case("openai cancel mid-stream")
def _():
    s = oc.chat.completions.create(model=model, messages=M, max_tokens=3000, stream=True, extra_body=X)
    for i, c in enumerate(s):
        if i == 5: s.close(); break
    return "closed"
@case("openai timeout mid-request")
def _():
    try: oc.with_options(timeout=0.05).chat.completions.create(model=model, messages=M, max_tokens=3000, extra_body=X); raise AssertionError("no timeout")
    except openai.APITimeoutError as e: return "APITimeoutError"

import langchain_openai
lc = langchain_openai.ChatOpenAI(model=model, base_url=base + "/v1", api_key="none", max_tokens=200, max_retries=0)
@case("langchain invoke")
def _(): return lc.invoke("hello").usage_metadata
@case("langchain stream")
def _(): return len(list(lc.stream("hello")))
@case("langchain bind_tools")
def _(): return lc.bind_tools([TOOL], tool_choice="get_weather").invoke("x").tool_calls
@case("langchain batch")
def _(): return len(lc.batch(["a", "b", "c"]))

import anthropic
ac = anthropic.Anthropic(base_url=base, api_key="none", max_retries=0)
@case("anthropic messages")
def _(): return ac.messages.create(model=model, max_tokens=4, messages=M).usage
@case("anthropic messages stream")
def _():
    with ac.messages.stream(model=model, max_tokens=5, messages=M) as s: n = len(list(s.text_stream)); return n, s.get_final_message().stop_reason
@case("anthropic system + cache_control")
def _(): return ac.messages.create(model=model, max_tokens=4, system=[{"type": "text", "text": "be brief " * 40, "cache_control": {"type": "ephemeral"}}], messages=M).usage
@case("anthropic tool use forced")
def _(): return [b.type for b in ac.messages.create(model=model, max_tokens=200, messages=M, tools=[{"name": "get_weather", "strict": True, "input_schema": TOOL["function"]["parameters"]}], tool_choice={"type": "tool", "name": "get_weather"}).content]
@case("anthropic count_tokens")
def _(): return ac.messages.count_tokens(model=model, messages=M).input_tokens
print(f"{ok} passed, {bad} failed")
