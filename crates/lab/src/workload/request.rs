//! A request before it has an id and a time.

use crate::Job;

use super::prompt::Prompt;

/// From when on jobs count, and until when they come, in seconds of virtual time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) warmup: f64,
    pub(super) end: f64,
}

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) prompt: Prompt,
    pub(super) output_tokens: u32,
    pub(super) max_output_tokens: Option<u32>,
    /// The segment that the answer will be, where a later prompt contains it.
    pub(super) answer: Option<u64>,
    pub(super) session: Option<u64>,
    pub(super) adapter: Option<u32>,
    pub(super) priority: i32,
    pub(super) flow: u64,
    pub(super) first_message: u64,
}

impl Request {
    pub(super) fn new(prompt: Prompt, output_tokens: u32) -> Self {
        Self {
            prompt,
            output_tokens,
            max_output_tokens: None,
            answer: None,
            session: None,
            adapter: None,
            priority: 0,
            flow: 0,
            first_message: 0,
        }
    }

    pub(super) fn job(self, id: u64, at: f64, warmup: bool) -> Job {
        let prompt_tokens = self.prompt.tokens();
        let blocks = match self.answer {
            Some(answer) => self.prompt.with(answer, self.output_tokens).blocks(),
            None => self.prompt.blocks(),
        };
        Job {
            id,
            at,
            session: self.session,
            blocks,
            prompt_tokens,
            output_tokens: self.output_tokens,
            max_output_tokens: self.max_output_tokens,
            adapter: self.adapter,
            priority: self.priority,
            flow: self.flow,
            first_message: self.first_message,
            warmup,
        }
    }
}
