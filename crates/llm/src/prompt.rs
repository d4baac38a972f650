//! The prompt as the engine will see it.

/// The pieces of a prompt in the order of a chat template: tools, system, then the turns.
#[derive(Debug, Clone, Default)]
pub struct Prompt<'a> {
    parts: Vec<&'a str>,
}

impl Prompt<'_> {
    /// No prompt was found in the body.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}
