//! InferenceModel, InferenceObjective, InferenceModelRewrite of a pool.

use super::*;

fn model(name: &str, model: &str, day: &str, rest: &str) -> String {
    format!(
        "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: {name}, namespace: a, creationTimestamp: {day}T00:00:00Z}}
spec: {{modelName: {model}, poolRef: {{name: llama}}{rest}}}
"
    )
}

fn other(group: &str, kind: &str, name: &str, day: &str, rest: &str) -> String {
    format!(
        "
apiVersion: {group}/v1alpha2
kind: {kind}
metadata: {{name: {name}, namespace: a, creationTimestamp: {day}T00:00:00Z}}
spec: {{poolRef: {{name: llama}}, {rest}}}
"
    )
}

fn rewrite(name: &str, day: &str, rules: &str) -> String {
    other(
        "llm-d.ai",
        "InferenceModelRewrite",
        name,
        day,
        &format!("rules: {rules}"),
    )
}

fn table(compiled: &Compiled, name: &str) -> std::sync::Arc<ModelTable> {
    let pool = compiled
        .plan
        .pools
        .values()
        .find(|pool| pool.key.name == name)
        .expect("the pool");
    pool.models.clone()
}

#[test]
fn the_oldest_owner_of_a_model_name_wins() {
    let older = model("z", "chat", "2025-01-01", ", criticality: Critical");
    let younger = model("a", "chat", "2025-01-02", ", criticality: Sheddable");
    for order in [[&older, &younger], [&younger, &older]] {
        let compiled = files(&[POOLS, order[0], order[1]]);
        assert_eq!(
            table(&compiled, "llama")
                .resolve("chat", None, 0.0)
                .priority,
            CRITICAL
        );
        assert_eq!(
            condition(&compiled, "InferenceModel a/z", "Accepted"),
            "True Accepted"
        );
        assert_eq!(
            condition(&compiled, "InferenceModel a/a", "Accepted"),
            "False ModelNameInUse"
        );
    }
    let undated = model("a", "chat", "2025", "").replace(", creationTimestamp: 2025T00:00:00Z", "");
    let compiled = files(&[POOLS, &undated, &older]);
    assert_eq!(
        condition(&compiled, "InferenceModel a/a", "Accepted"),
        "False ModelNameInUse"
    );
}

#[test]
fn a_pool_reference_without_group_means_v1_first() {
    let pools = POOLS.replace("name: old, namespace: a}", "name: llama, namespace: a}");
    let plain = model("m", "chat", "2025-01-01", "");
    let explicit = plain
        .replace(
            "{name: llama}",
            "{group: inference.networking.x-k8s.io, name: llama}",
        )
        .replace("name: m,", "name: n,");
    let wrong = plain
        .replace("{name: llama}", "{name: gone}")
        .replace("name: m,", "name: o,");
    let compiled = files(&[&pools, &plain, &explicit, &wrong]);
    let knows: Vec<_> = compiled
        .plan
        .pools
        .values()
        .map(|pool| (pool.key.kind, pool.models.knows("chat")))
        .collect();
    assert_eq!(
        knows,
        [
            (PoolKind::Inference, true),
            (PoolKind::InferenceAlpha, true)
        ]
    );
    assert_eq!(
        condition(&compiled, "InferenceModel a/n", "Accepted"),
        "True Accepted"
    );
    assert_eq!(
        condition(&compiled, "InferenceModel a/o", "Accepted"),
        "False PoolNotFound"
    );

    let only_old = files(&[POOLS, &plain.replace("name: llama", "name: old")]);
    assert!(table(&only_old, "old").knows("chat") && !table(&only_old, "llama").knows("chat"));
}

#[test]
fn rewrites_go_exact_then_age_then_order() {
    let to = |name: &str| format!("targets: [{{modelRewrite: {name}}}]");
    let exact = |model: &str| format!("matches: [{{model: {{value: {model}}}}}]");
    let compiled = files(&[
        POOLS,
        &model(
            "m",
            "chat",
            "2020-01-01",
            ", targetModels: [{name: from-model}]",
        ),
        &model("m2", "plain", "2020-01-01", ""),
        &rewrite(
            "young",
            "2025-01-02",
            &format!("[{{{}, {}}}]", exact("chat"), to("young")),
        ),
        &rewrite(
            "old",
            "2025-01-01",
            &format!(
                "[{{{}}}, {{{}, {}}}, {{{}, {}}}, {{matches: [{{}}], {}}}]",
                to("all"),
                exact("chat"),
                to("first"),
                exact("chat"),
                to("second"),
                to("late")
            ),
        ),
        &rewrite(
            "older",
            "2024-01-01",
            &format!("[{{{}}}, {{{}, {}}}]", exact("x"), exact("y"), to("z")),
        ),
        &rewrite("useless", "2023-01-01", "[{}]"),
        &rewrite(
            "strange",
            "2023-01-01",
            &format!(
                "[{{matches: [{{model: {{type: Prefix, value: c}}}}], {}}}]",
                to("no")
            ),
        ),
    ]);
    let table = table(&compiled, "llama");
    let target = |model| table.resolve(model, None, 0.5).target_model;
    assert_eq!(
        [
            target("chat"),
            target("anything"),
            target("y"),
            target("x"),
            target("plain")
        ],
        [
            Some("first"),
            Some("all"),
            Some("z"),
            Some("all"),
            Some("all")
        ]
    );
    assert_eq!(table.resolve("chat", None, 0.5).priority, STANDARD);
    assert_eq!(table.resolve("anything", None, 0.5).priority, SHEDDABLE);
    assert_eq!(table.public_names(), ["chat", "plain", "y"]);
    assert_eq!(
        condition(
            &compiled,
            "InferenceModelRewrite a/older",
            "PartiallyInvalid"
        ),
        "True InvalidRules"
    );
    assert_eq!(
        condition(&compiled, "InferenceModelRewrite a/older", "Accepted"),
        "True Accepted"
    );
    for name in ["useless", "strange"] {
        assert_eq!(
            condition(
                &compiled,
                &format!("InferenceModelRewrite a/{name}"),
                "Accepted"
            ),
            "False InvalidRules"
        );
    }
}

#[test]
fn objectives_of_both_groups_count_by_name() {
    let compiled = files(&[
        POOLS,
        &other(
            "llm-d.ai",
            "InferenceObjective",
            "gold",
            "2025-01-01",
            "priority: 10",
        ),
        &other(
            "inference.networking.x-k8s.io",
            "InferenceObjective",
            "low",
            "2025-01-01",
            "priority: -99999999999",
        ),
        &other("llm-d.ai", "InferenceObjective", "unset", "2025-01-01", "").replace(", }", "}"),
        &other(
            "llm-d.ai",
            "InferenceObjective",
            "elsewhere",
            "2025-01-01",
            "priority: 5",
        )
        .replace("name: llama", "name: old"),
        &model("m", "chat", "2025-01-01", ", criticality: Critical"),
    ]);
    let table = table(&compiled, "llama");
    let priority = |header| table.resolve("chat", header, 0.0).priority;
    let asked = [
        Some("gold"),
        Some("low"),
        Some("unset"),
        Some("elsewhere"),
        Some("nobody"),
        None,
    ]
    .map(priority);
    assert_eq!(asked, [10, i32::MIN, 0, 1, 1, 1]);
    assert_eq!(
        condition(&compiled, "InferenceObjective a/gold", "Accepted"),
        "True Accepted"
    );
}

#[test]
fn a_cluster_says_nothing_about_models_of_foreign_pools() {
    let parts = [CLASS, GATEWAY, POOLS, &model("m", "chat", "2025-01-01", "")];
    assert_eq!(
        condition(&cluster(&parts), "InferenceModel a/m", "Accepted"),
        "none"
    );
    let used = route("a", "r", &format!("[{}]", pool_ref("llama")));
    let parts = [&parts[..], &[&used]].concat();
    assert_eq!(
        condition(&cluster(&parts), "InferenceModel a/m", "Accepted"),
        "True Accepted"
    );
}
