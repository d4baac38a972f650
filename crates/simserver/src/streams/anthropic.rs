//! Anthropic's messages. There is no `[DONE]`.

use serde_json::json;

use super::{Dialect, event};
use crate::answers::{anthropic_reason, anthropic_usage};
use crate::error::ApiError;
use crate::generation::Generation;
use crate::request::Wishes;

/// `/v1/messages`.
pub(crate) struct Messages {
    wishes: Wishes,
}

impl Messages {
    pub(crate) fn new(wishes: Wishes) -> Self {
        Self { wishes }
    }
}

impl Dialect for Messages {
    fn open(&mut self, generation: &Generation, out: &mut String) {
        let id = format!("chatcmpl-{}", self.wishes.id);
        let cached = generation.cached_tokens();
        let message = json!({
            "id": id, "type": "message", "role": "assistant", "content": [], "model": self.wishes.model,
            "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": generation.prompt_tokens - cached, "output_tokens": 0},
        });
        event(
            out,
            "message_start",
            &json!({"type": "message_start", "message": message}),
        );
        let block = match &self.wishes.tool {
            Some(tool) => {
                json!({"type": "tool_use", "id": format!("toolu_{}", self.wishes.id), "name": tool, "input": {}})
            }
            None => json!({"type": "text", "text": ""}),
        };
        event(
            out,
            "content_block_start",
            &json!({"type": "content_block_start", "content_block": block, "index": 0}),
        );
    }

    fn token(
        &mut self,
        generation: &Generation,
        choice: usize,
        token: u32,
        _: Option<&'static str>,
        out: &mut String,
    ) {
        let text = generation.choices[choice].plan.slice(token, token + 1);
        let delta = match self.wishes.tool {
            Some(_) => json!({"type": "input_json_delta", "partial_json": text}),
            None => json!({"type": "text_delta", "text": text}),
        };
        event(
            out,
            "content_block_delta",
            &json!({"type": "content_block_delta", "delta": delta, "index": 0}),
        );
    }

    fn end(&mut self, _: &Generation, _: usize, _: &'static str, _: &mut String) {}

    fn close(&mut self, generation: &Generation, out: &mut String) {
        event(
            out,
            "content_block_stop",
            &json!({"type": "content_block_stop", "index": 0}),
        );
        let choice = &generation.choices[0];
        let delta = json!({
            "stop_reason": anthropic_reason(choice, &self.wishes), "stop_sequence": choice.plan.stopped_by,
        });
        let usage = anthropic_usage(generation);
        event(
            out,
            "message_delta",
            &json!({"type": "message_delta", "delta": delta, "usage": usage}),
        );
        event(out, "message_stop", &json!({"type": "message_stop"}));
    }

    fn error(&mut self, cause: &ApiError, out: &mut String) {
        event(out, "error", &cause.anthropic());
    }
}
