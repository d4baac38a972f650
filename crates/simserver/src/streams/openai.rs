//! Chat and text completions.

use serde_json::{Value, json};

use super::{Dialect, data, quoted};
use crate::answers::{FINGERPRINT, chat_reason, token_logprob, tool_call_id, usage};
use crate::error::ApiError;
use crate::generation::Generation;
use crate::request::Wishes;

/// The fields before `choices`, written once.
fn prefix(id: &str, object: &str, wishes: &Wishes) -> String {
    let (id, model) = (quoted(id), quoted(&wishes.model));
    format!(
        r#"{{"id":{id},"object":"{object}","created":{},"model":{model},"choices":["#,
        wishes.created
    )
}

/// `null` or a quoted word.
fn word(reason: Option<&str>) -> String {
    reason.map_or_else(|| "null".to_owned(), quoted)
}

/// Usage so far, with its leading comma, where every chunk carries it.
fn running_usage(wishes: &Wishes, prompt: u32, completion: u32) -> String {
    if !wishes.continuous_usage {
        return String::new();
    }
    let total = prompt + completion;
    format!(
        r#","usage":{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{completion}}}"#
    )
}

/// The usage chunk, if asked for, and the end mark.
fn close(prefix: &str, wishes: &Wishes, generation: &Generation, out: &mut String) {
    if wishes.final_usage {
        let usage = usage(generation);
        data(
            out,
            &format!(r#"{prefix}],"usage":{usage},"system_fingerprint":"{FINGERPRINT}"}}"#),
        );
    }
    data(out, "[DONE]");
}

fn error(error: &ApiError, out: &mut String) {
    data(out, &json!({ "error": error.object() }).to_string());
    data(out, "[DONE]");
}

/// `/v1/completions`.
pub(crate) struct Completion {
    wishes: Wishes,
    prefix: String,
    told: u32,
}

impl Completion {
    pub(crate) fn new(wishes: Wishes) -> Self {
        let prefix = prefix(&format!("cmpl-{}", wishes.id), "text_completion", &wishes);
        Self {
            wishes,
            prefix,
            told: 0,
        }
    }

    fn chunk(
        &self,
        generation: &Generation,
        choice: usize,
        text: &str,
        reason: Option<&str>,
        out: &mut String,
    ) {
        let stopped = reason.and(generation.choices[choice].plan.stopped_by.as_deref());
        let json = format!(
            r#"{}{{"index":{choice},"text":{},"logprobs":null,"finish_reason":{},"stop_reason":{},"prompt_token_ids":null,"token_ids":null}}]{}}}"#,
            self.prefix,
            quoted(text),
            word(reason),
            word(stopped),
            running_usage(&self.wishes, generation.prompt_tokens, self.told)
        );
        data(out, &json);
    }
}

impl Dialect for Completion {
    fn open(&mut self, _: &Generation, _: &mut String) {}

    fn token(
        &mut self,
        generation: &Generation,
        choice: usize,
        token: u32,
        reason: Option<&'static str>,
        out: &mut String,
    ) {
        self.told += 1;
        let text = generation.choices[choice].plan.slice(token, token + 1);
        self.chunk(generation, choice, text, reason, out);
    }

    fn end(
        &mut self,
        generation: &Generation,
        choice: usize,
        reason: &'static str,
        out: &mut String,
    ) {
        self.chunk(generation, choice, "", Some(reason), out);
    }

    fn close(&mut self, generation: &Generation, out: &mut String) {
        close(&self.prefix, &self.wishes, generation, out);
    }

    fn error(&mut self, cause: &ApiError, out: &mut String) {
        error(cause, out);
    }
}

/// `/v1/chat/completions`.
pub(crate) struct Chat {
    wishes: Wishes,
    prefix: String,
    told: u32,
}

impl Chat {
    pub(crate) fn new(wishes: Wishes) -> Self {
        let prefix = prefix(
            &format!("chatcmpl-{}", wishes.id),
            "chat.completion.chunk",
            &wishes,
        );
        Self {
            wishes,
            prefix,
            told: 0,
        }
    }

    fn chunk(&self, generation: &Generation, choice: usize, body: &str, out: &mut String) {
        let usage = running_usage(&self.wishes, generation.prompt_tokens, self.told);
        data(
            out,
            &format!(r#"{}{{"index":{choice},{body}}}]{usage}}}"#, self.prefix),
        );
    }

    fn delta(&self, choice: usize, token: u32, text: &str) -> String {
        match &self.wishes.tool {
            None => format!(r#"{{"content":{}}}"#, quoted(text)),
            Some(tool) if token == 0 => json!({"tool_calls": [{
                "index": 0, "id": tool_call_id(&self.wishes, choice), "type": "function",
                "function": {"name": tool, "arguments": text},
            }]})
            .to_string(),
            Some(_) => {
                json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}).to_string()
            }
        }
    }

    fn tail(&self, generation: &Generation, choice: usize, reason: Option<&'static str>) -> String {
        let reason_word = word(chat_reason(reason, &self.wishes));
        if reason.is_none() {
            return format!(r#""finish_reason":{reason_word},"token_ids":null"#);
        }
        let stopped = word(generation.choices[choice].plan.stopped_by.as_deref());
        format!(r#""finish_reason":{reason_word},"stop_reason":{stopped},"token_ids":null"#)
    }
}

impl Dialect for Chat {
    fn open(&mut self, generation: &Generation, out: &mut String) {
        for choice in 0..generation.choices.len() {
            let body =
                r#""delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null"#;
            self.chunk(generation, choice, body, out);
        }
    }

    fn token(
        &mut self,
        generation: &Generation,
        choice: usize,
        token: u32,
        reason: Option<&'static str>,
        out: &mut String,
    ) {
        self.told += 1;
        let text = generation.choices[choice].plan.slice(token, token + 1);
        let logprobs = self.wishes.logprobs.map_or(
            Value::Null,
            |top| json!({"content": [token_logprob(text, top)]}),
        );
        let (delta, tail) = (
            self.delta(choice, token, text),
            self.tail(generation, choice, reason),
        );
        self.chunk(
            generation,
            choice,
            &format!(r#""delta":{delta},"logprobs":{logprobs},{tail}"#),
            out,
        );
    }

    fn end(
        &mut self,
        generation: &Generation,
        choice: usize,
        reason: &'static str,
        out: &mut String,
    ) {
        let tail = self.tail(generation, choice, Some(reason));
        self.chunk(
            generation,
            choice,
            &format!(r#""delta":{{"content":""}},"logprobs":null,{tail}"#),
            out,
        );
    }

    fn close(&mut self, generation: &Generation, out: &mut String) {
        close(&self.prefix, &self.wishes, generation, out);
    }

    fn error(&mut self, cause: &ApiError, out: &mut String) {
        error(cause, out);
    }
}
