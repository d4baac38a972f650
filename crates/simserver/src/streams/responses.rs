//! OpenAI's responses. There is no `[DONE]`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Dialect, event};
use crate::answers::{output_item, response};
use crate::error::ApiError;
use crate::generation::Generation;
use crate::request::Wishes;
use crate::routes::store_response;
use crate::state::State;

/// `/v1/responses`.
pub(crate) struct ResponseEvents {
    pub(crate) wishes: Wishes,
    pub(crate) request: Value,
    pub(crate) messages: Vec<Value>,
    pub(crate) state: Arc<State>,
    pub(crate) number: u64,
}

impl ResponseEvents {
    fn event(&mut self, kind: &str, mut fields: Value, out: &mut String) {
        fields["sequence_number"] = self.number.into();
        fields["type"] = kind.into();
        self.number += 1;
        event(out, kind, &fields);
    }

    fn item_id(&self) -> String {
        format!("msg_{}", self.wishes.id)
    }
}

impl Dialect for ResponseEvents {
    fn open(&mut self, generation: &Generation, out: &mut String) {
        let begun = response(generation, &self.wishes, &self.request, false);
        self.event("response.created", json!({ "response": begun }), out);
        self.event("response.in_progress", json!({ "response": begun }), out);
        let item = output_item(&generation.choices[0], &self.wishes, "in_progress");
        self.event(
            "response.output_item.added",
            json!({"item": item, "output_index": 0}),
            out,
        );
        let part = json!({"annotations": [], "text": "", "type": "output_text", "logprobs": []});
        let item_id = self.item_id();
        let fields =
            json!({"content_index": 0, "item_id": item_id, "output_index": 0, "part": part});
        self.event("response.content_part.added", fields, out);
    }

    fn token(
        &mut self,
        generation: &Generation,
        choice: usize,
        token: u32,
        _: Option<&'static str>,
        out: &mut String,
    ) {
        let delta = generation.choices[choice].plan.slice(token, token + 1);
        let item_id = self.item_id();
        let fields = json!({
            "content_index": 0, "delta": delta, "item_id": item_id, "logprobs": [], "output_index": 0,
        });
        self.event("response.output_text.delta", fields, out);
    }

    fn end(&mut self, _: &Generation, _: usize, _: &'static str, _: &mut String) {}

    fn close(&mut self, generation: &Generation, out: &mut String) {
        let choice = &generation.choices[0];
        let (item_id, text) = (self.item_id(), choice.text());
        let fields = json!({
            "content_index": 0, "item_id": item_id, "logprobs": [], "output_index": 0, "text": text,
        });
        self.event("response.output_text.done", fields, out);
        let part =
            json!({"annotations": [], "text": text, "type": "output_text", "logprobs": null});
        let fields =
            json!({"content_index": 0, "item_id": item_id, "output_index": 0, "part": part});
        self.event("response.content_part.done", fields, out);
        let item = output_item(choice, &self.wishes, "completed");
        self.event(
            "response.output_item.done",
            json!({"item": item, "output_index": 0}),
            out,
        );
        let done = response(generation, &self.wishes, &self.request, true);
        let messages = std::mem::take(&mut self.messages);
        store_response(
            &self.state,
            &self.wishes,
            &self.request,
            messages,
            text,
            &done,
        );
        self.event("response.completed", json!({ "response": done }), out);
    }

    fn error(&mut self, cause: &ApiError, out: &mut String) {
        let fields = json!({"code": cause.status.as_u16().to_string(), "message": cause.message, "param": null});
        self.event("error", fields, out);
    }
}
