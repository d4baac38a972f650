//! Bodies in every dialect: no panic, and only the model's value may change.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use llm::{ChainSeed, Dialect};

const DIALECTS: [Dialect; 14] = [
    Dialect::ChatCompletions, Dialect::Completions, Dialect::Embeddings, Dialect::Responses, Dialect::Messages,
    Dialect::CountTokens, Dialect::Rerank, Dialect::Score, Dialect::Classify, Dialect::Pooling, Dialect::Tokenize,
    Dialect::Detokenize, Dialect::AudioTranscriptions, Dialect::AudioTranslations,
];

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let dialect = DIALECTS[usize::from(*first) % DIALECTS.len()];
    let Ok(view) = llm::read(dialect, Some("multipart/form-data; boundary=x"), body) else { return };
    let chain = view.prompt.chain(&ChainSeed { model: "m", cache_salt: view.cache_salt.as_deref() });
    assert!(chain.hashes.len() <= body.len() / llm::BLOCK_BYTES + 64 * 1024);
    let Some(model) = &view.model else { return };
    let owned = Bytes::copy_from_slice(body);
    let parts = llm::splice_model(&owned, model.span.clone(), view.is_json(), "other");
    assert_eq!(&parts[0][..], &body[..model.span.start]);
    assert_eq!(&parts[2][..], &body[model.span.end..]);
    let changed = parts.concat();
    let again = llm::read(dialect, Some("multipart/form-data; boundary=x"), &changed).expect("still readable");
    assert_eq!(again.model.expect("still there").name, "other");
});
