//! The list of known failures, and the judgement of a run by it: a listed variant
//! that passes, or an unlisted one that fails, fails the run; so the list can only
//! shrink.

use std::collections::BTreeMap;

use crate::conformance::case::Outcome;
use crate::craft::Family;

/// A case in one family.
pub type Variant = (u16, Family);

/// The variants that may fail, with the reason as the list tells it.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<Variant, String>);

impl Known {
    /// Reads a list: a line a variant, `24 v4: reason`; `#` begins a comment. A line
    /// of another form, twice the same variant, or one that `exists` denies is an
    /// error.
    pub fn parse(text: &str, exists: impl Fn(Variant) -> bool) -> Result<Self, String> {
        let mut known = BTreeMap::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("line {}: {what}: {line}", i + 1);
            let (variant, reason) =
                parse_line(line).ok_or_else(|| wrong("not of the form `24 v4: reason`"))?;
            if !exists(variant) {
                return Err(wrong("no such case or family"));
            }
            if known.insert(variant, reason).is_some() {
                return Err(wrong("listed before"));
            }
        }
        Ok(Self(known))
    }

    /// Whether a variant may fail.
    #[must_use]
    pub fn lists(&self, variant: Variant) -> bool {
        self.0.contains_key(&variant)
    }

    /// What fails the run: nothing, when each variant that ran did as listed and its
    /// two traces are equal.
    #[must_use]
    pub fn judge<'a>(
        &self,
        results: impl IntoIterator<Item = &'a (Variant, Outcome)>,
    ) -> Vec<String> {
        let mut verdicts = Vec::new();
        for (variant, outcome) in results {
            let name = name(*variant);
            match (self.0.get(variant), &outcome.reason) {
                (Some(reason), None) => {
                    verdicts.push(format!("{name} passes: remove the line `{name}: {reason}`"))
                }
                (None, Some(failure)) => verdicts.push(format!("{name} fails: {failure}")),
                (Some(_), Some(_)) | (None, None) => {}
            }
            if let Some(divergence) = &outcome.divergence {
                verdicts.push(format!(
                    "{name}: the traces of native (-) and component (+) differ at {divergence}"
                ));
            }
        }
        verdicts
    }
}

/// As it stands in the list.
#[must_use]
pub fn name((number, family): Variant) -> String {
    let family = match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    };
    format!("{number} {family}")
}

fn parse_line(line: &str) -> Option<(Variant, String)> {
    let (variant, reason) = line.split_once(':')?;
    let (number, family) = variant.split_once(' ')?;
    let family = match family {
        "v4" => Family::V4,
        "v6" => Family::V6,
        _ => return None,
    };
    let reason = reason.trim();
    (!reason.is_empty()).then_some(((number.parse().ok()?, family), reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Variant = (24, Family::V4);
    const V6: Variant = (24, Family::V6);

    fn outcome(variant: Variant, reason: Option<&str>) -> (Variant, Outcome) {
        let outcome = Outcome {
            reason: reason.map(str::to_owned),
            divergence: None,
            transcript: Vec::new(),
        };
        (variant, outcome)
    }

    fn known(text: &str) -> Result<Known, String> {
        Known::parse(text, |(number, _)| (1..=78).contains(&number))
    }

    #[test]
    fn a_listed_failure_and_an_unlisted_pass_are_as_they_should_be() {
        let known = known("# a comment\n\n24 v4: FIN is forgotten\n").unwrap();
        assert!(known.lists(V4) && !known.lists(V6));
        let verdict = known.judge(&[outcome(V4, Some("no EOF")), outcome(V6, None)]);
        assert_eq!(verdict, Vec::<String>::new());
    }

    #[test]
    fn an_unlisted_failure_fails_the_run_and_says_what_broke() {
        let verdict = known("")
            .unwrap()
            .judge(&[outcome(V4, None), outcome(V6, Some("no EOF"))]);
        assert_eq!(verdict, ["24 v6 fails: no EOF"]);
    }

    #[test]
    fn a_listed_pass_fails_the_run_and_says_which_line_to_remove() {
        let verdict = known("24 v4: FIN is forgotten")
            .unwrap()
            .judge(&[outcome(V4, None)]);
        assert_eq!(
            verdict,
            ["24 v4 passes: remove the line `24 v4: FIN is forgotten`"]
        );
    }

    #[test]
    fn nothing_excuses_that_native_and_component_differ() {
        let known = known("24 v4: FIN is forgotten").unwrap();
        let mut failure = outcome(V4, Some("no EOF"));
        failure.1.divergence = Some("line 7".into());
        let verdict = known.judge(&[failure]);
        let expected = "24 v4: the traces of native (-) and component (+) differ at line 7";
        assert_eq!(verdict, [expected]);
    }

    #[test]
    fn a_variant_that_did_not_run_is_not_judged() {
        let known = known("24 v4: FIN is forgotten").unwrap();
        assert_eq!(known.judge(&[]), Vec::<String>::new());
    }

    #[test]
    fn lines_that_say_nothing_are_errors() {
        for text in [
            "24: all", "24 v5: x", "v4 24: x", "24 v4", "24 v4: ", "x v4: y",
        ] {
            let error = known(text).unwrap_err();
            assert!(error.starts_with("line 1: not of the form"), "{error}");
        }
        let error = known("79 v4: beyond").unwrap_err();
        assert_eq!(error, "line 1: no such case or family: 79 v4: beyond");
        let error = known("1 v4: a\n1 v4: b").unwrap_err();
        assert_eq!(error, "line 2: listed before: 1 v4: b");
    }
}
