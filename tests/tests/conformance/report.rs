//! What a run prints.

use l3l4_tests::conformance::case::{Case, Outcome};
use l3l4_tests::craft::{FAMILIES, Family};
use serde_json::{Value, json};

use crate::Variant;

type Results = [(Variant, Outcome)];

/// The cases, a line each.
pub(crate) fn list(cases: &[&Case]) {
    for case in cases {
        let families: Vec<_> = case
            .families
            .iter()
            .map(|family| name((case.number, *family)))
            .collect();
        println!("{}: {} (RFC {})", families.join(", "), case.title, case.rfc);
    }
}

/// The exchanges as they went on the native engine.
pub(crate) fn exchanges(results: &Results) {
    for (variant, outcome) in results {
        println!("{}", name(*variant));
        for line in &outcome.transcript {
            println!("{line}");
        }
        println!();
    }
}

/// A line a case, below it the reason of each failure and the end of its exchange,
/// and the totals.
pub(crate) fn table(cases: &[&Case], results: &Results) {
    println!("  #  v4    v6    what (RFC)");
    for case in cases {
        let mark = |family| match outcome(case, family, results) {
            None => "–   ",
            Some(outcome) if outcome.passed() => "pass",
            Some(_) => "FAIL",
        };
        println!(
            "{:>3}  {}  {}  {} ({})",
            case.number,
            mark(Family::V4),
            mark(Family::V6),
            case.title,
            case.rfc
        );
        for line in reasons(case, results) {
            println!("                 {line}");
        }
        for family in FAMILIES {
            let Some(outcome) = outcome(case, family, results).filter(|it| !it.passed()) else {
                continue;
            };
            if cases.len() > 1 {
                let lines = &outcome.transcript;
                for line in &lines[lines.len().saturating_sub(12)..] {
                    println!("                 {line}");
                }
            }
        }
    }
    println!("{}", totals(cases, results));
}

/// Each failure in a line.
pub(crate) fn failures(results: &Results) {
    for (variant, outcome) in results {
        let name = name(*variant);
        if let Some(reason) = &outcome.reason {
            eprintln!("{name} fails: {reason}");
        }
        if let Some(divergence) = &outcome.divergence {
            eprintln!("{name}: the traces of native (-) and component (+) differ at {divergence}");
        }
    }
}

/// The table for programs.
pub(crate) fn json(cases: &[&Case], results: &Results) -> Value {
    let families = |case: &Case| -> Value {
        let each = case.families.iter().map(|family| {
            let found = outcome(case, *family, results);
            let reason = found.and_then(|outcome| outcome.reason.clone());
            let divergence = found.and_then(|outcome| outcome.divergence.clone());
            let value = json!({
                "passed": found.is_some_and(Outcome::passed),
                "reason": reason,
                "divergence": divergence,
            });
            (
                if *family == Family::V4 { "v4" } else { "v6" }.to_owned(),
                value,
            )
        });
        Value::Object(each.collect())
    };
    let rows: Vec<_> = cases
        .iter()
        .map(|case| {
            json!({
                "number": case.number,
                "rfc": case.rfc,
                "title": case.title,
                "families": families(case),
            })
        })
        .collect();
    json!({ "cases": rows, "summary": totals(cases, results) })
}

/// Why a case failed; one line when both families failed alike.
fn reasons(case: &Case, results: &Results) -> Vec<String> {
    let reason = |family| outcome(case, family, results)?.reason.as_deref();
    match (reason(Family::V4), reason(Family::V6)) {
        (Some(v4), Some(v6)) if v4 == v6 => vec![v4.to_owned()],
        (v4, v6) => {
            let v4 = v4.map(|reason| format!("v4: {reason}"));
            v4.into_iter()
                .chain(v6.map(|reason| format!("v6: {reason}")))
                .collect()
        }
    }
}

/// `N of 78 (IPv4 a of b, IPv6 c of d)`: a case passes if each of its variants does.
fn totals(cases: &[&Case], results: &Results) -> String {
    let whole = |case: &&&Case| {
        let mut families = case.families.iter();
        families.all(|family| outcome(case, *family, results).is_some_and(Outcome::passed))
    };
    let of = |family| {
        let all = results.iter().filter(|((_, of), _)| *of == family);
        let passing = all.clone().filter(|(_, outcome)| outcome.passed()).count();
        format!("{passing} of {}", all.count())
    };
    format!(
        "{} of {} (IPv4 {}, IPv6 {})",
        cases.iter().filter(whole).count(),
        cases.len(),
        of(Family::V4),
        of(Family::V6)
    )
}

fn outcome<'a>(case: &Case, family: Family, results: &'a Results) -> Option<&'a Outcome> {
    let variant = (case.number, family);
    let mut results = results.iter();
    results.find_map(|(of, outcome)| (*of == variant).then_some(outcome))
}

fn name((number, family): Variant) -> String {
    let family = match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    };
    format!("{number} {family}")
}
