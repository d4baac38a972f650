//! Recordings of pools' lives: everything that a decision core was told, when, and what it decided.
//!
//! The core is a state machine: equal seeds and equal calls give equal decisions. So a file with all calls is enough to
//! run it again, on another machine and another day, and to see whether the same decisions come out; and the requests in
//! it are a workload on which other policies can be tried. There is no text in it: prompts are hashes and sizes.
//!
//! # The format
//!
//! One JSON array a line: the pool's number in the file, nanoseconds since the process began, what happened, and at
//! times a number: 1 where the core was told more before it was asked for decisions, 2 where it was told this before it
//! had said its last word, 3 where both.
//!
//! ```text
//! [0,0,{"pool":{"version":1,"name":"default/urls","seed":7,"config":{...}}}]
//! [0,51200,{"join":{"endpoint":{"index":0,"generation":0},"profile":{...}}}]
//! [0,83100,{"arrive":{"ticket":0,"request":{"prefix":[1234,5678],"prompt_tokens":180,...}}}]
//! [0,83100,{"dispatch":{"ticket":0,"endpoints":[{"index":0,"generation":0}],...}}]
//! [0,912000,{"first_token":{"ticket":0}}]
//! [0,1904000,{"finished":{"ticket":0,"usage":{...},"ok":true}}]
//! [0,2000000,"tick"]
//! ```
//!
//! After each line that tells something, unless it ends with 1 or 3, the core was asked until it had no more to say; what it
//! said follows as `dispatch`, `reject` and `evict`. A `tick` is the core being asked without news, because it wanted to
//! be woken. A pool's first line names its seed and settings. Where the recorder ran into its bound the last line is
//! `"full"`. A file that was cut off in the middle of a line can be read up to there.

mod line;
mod reader;
mod recorder;

pub use line::{Line, Opened, VERSION, What};
pub use reader::{ReadError, Reader};
pub use recorder::{Recorder, Track};

#[cfg(test)]
mod tests;
