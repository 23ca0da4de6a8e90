//! Attacks on initial sequence numbers: what an observer of some can say of the
//! next (RFC 6528 1, RFC 9293 MUST-9).

/// How many numbers were foretold exactly, of each kind of guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// As the one before, or a constant step further (the step before this one, or
    /// the step of the step).
    pub steps: usize,
    /// A linear congruence modulo 2^32, solved from three differences.
    pub congruence: usize,
    /// A linear generator of 64 bits whose upper bits are the numbers, its state
    /// recovered (smoltcp 0.14).
    pub state: usize,
}

/// Guesses each number from those before it.
#[must_use]
pub fn foretell(numbers: &[u32]) -> Hits {
    let mut hits = Hits::default();
    for i in 4..numbers.len() {
        let seen = &numbers[..i];
        hits.steps += usize::from(steps(seen).contains(&numbers[i]));
        hits.congruence += usize::from(congruence(seen) == Some(numbers[i]));
    }
    // One state foretells all that follow, so that a few attempts are enough.
    let fives = numbers.windows(5).step_by(32);
    hits.state = fives
        .filter(|five| recover(&five[..4]).is_some_and(|state| number(step(state)) == five[4]))
        .count();
    hits
}

fn steps(seen: &[u32]) -> [u32; 4] {
    let [.., d, c, b, a] = *seen else {
        return [0; 4];
    };
    let step = a.wrapping_sub(b);
    let before = b.wrapping_sub(c);
    let growth = step.wrapping_sub(before);
    let third = growth.wrapping_sub(before.wrapping_sub(c.wrapping_sub(d)));
    let linear = a.wrapping_add(step);
    let square = linear.wrapping_add(growth);
    [a, linear, square, square.wrapping_add(third)]
}

/// The next of `x' = m x + k` modulo 2^32, if the differences tell `m`.
fn congruence(seen: &[u32]) -> Option<u32> {
    let [.., d, c, b, a] = *seen else { return None };
    let (early, late) = (c.wrapping_sub(d), b.wrapping_sub(c));
    let factor = late.wrapping_mul(inverse(early)?);
    let last = a.wrapping_sub(b);
    // The factor has to explain the last difference, or it is chance.
    (last == late.wrapping_mul(factor)).then(|| a.wrapping_add(last.wrapping_mul(factor)))
}

/// Modulo 2^32, of an odd number: Newton's iteration doubles the correct bits.
fn inverse(number: u32) -> Option<u32> {
    if number.is_multiple_of(2) {
        return None;
    }
    let mut inverse = number;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(number.wrapping_mul(inverse)));
    }
    Some(inverse)
}

/// The generator of smoltcp 0.14 (`src/rand.rs`): 64 bits of state, and a window of
/// 32 bits whose place the upper three choose.
const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
const INCREMENT: u64 = 0x7590_ef39;

fn step(state: u64) -> u64 {
    state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)
}

fn number(state: u64) -> u32 {
    let shift = 29 - (state >> 61);
    u32::try_from(state >> shift & 0xffff_ffff).expect("masked")
}

/// The state behind the last of four numbers. The first shows 32 bits of its state
/// but not the `shift` below; of those, a second number leaves about one guess in
/// 2^32, which is found without trying each.
fn recover(seen: &[u32]) -> Option<u64> {
    let [first, second, third, fourth] = *seen else {
        return None;
    };
    for shift in 22..=29 {
        for next in 22..=29u32 {
            // Lower bits of a state depend on lower bits of the one before only.
            let modulus = 1u64 << (shift.min(next) + 32);
            let seen = u64::from(first) << shift;
            let window = u64::from(second) << next & (modulus - 1);
            let mut from = 0;
            while let Some(low) = search(seen + from, modulus, window, next) {
                if low >= 1 << shift || from + low >= 1 << shift {
                    break;
                }
                let lower = seen | (from + low);
                let found = complete(lower, shift, [first, second, third, fourth]);
                if found.is_some() {
                    return found;
                }
                from += low + 1;
            }
        }
    }
    None
}

/// The least number that added to `state` makes the next state lie in the `window`
/// of 2^`width` states, all modulo `modulus`.
fn search(state: u64, modulus: u64, window: u64, width: u32) -> Option<u64> {
    let low = window.wrapping_sub(step(state)) & (modulus - 1);
    let high = low + (1 << width) - 1;
    let factor = u128::from(MULTIPLIER & (modulus - 1));
    let wide = u128::from(modulus);
    let least = if high >= modulus {
        Some(0) // The window lies around zero.
    } else {
        least_multiplier(factor, wide, low.into(), high.into())
    };
    least.and_then(|least| u64::try_from(least).ok())
}

/// The least `x` with `low <= factor * x mod modulus <= high`, by Euclid's descent.
fn least_multiplier(factor: u128, modulus: u128, low: u128, high: u128) -> Option<u128> {
    if low == 0 {
        return Some(0);
    }
    if factor == 0 {
        return None;
    }
    let first = low.div_ceil(factor);
    if first * factor <= high {
        return Some(first);
    }
    if 2 * factor > modulus {
        // The mirror image descends faster.
        return least_multiplier(modulus - factor, modulus, modulus - high, modulus - low);
    }
    // None before the first wrap: how often to wrap is a problem modulo `factor`.
    let (near, far) = (high % factor, low % factor);
    let wraps = least_multiplier(modulus % factor, factor, factor - near, factor - far)?;
    Some((low + modulus * wraps).div_ceil(factor))
}

/// The bits above the first number's window: the upper three made its place, and
/// those between are at most seven.
fn complete(lower: u64, shift: u32, seen: [u32; 4]) -> Option<u64> {
    let upper = u64::from(29 - shift) << 61;
    let states = (0..1u64 << (29 - shift)).map(|middle| {
        let first = upper | middle << (shift + 32) | lower;
        let mut states = [first; 4];
        for i in 1..4 {
            states[i] = step(states[i - 1]);
        }
        states
    });
    let mut fitting = states.filter(|states| states.map(number) == seen);
    fitting.next().map(|states| states[3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn smoltcps_generator_is_foretold() {
        let mut state = 0x0123_4567_89ab_cdef;
        let numbers: Vec<_> = (0..40)
            .map(|_| {
                state = step(state);
                number(state)
            })
            .collect();
        assert_eq!(foretell(&numbers).state, 2);
    }

    #[test]
    fn counters_and_congruences_are_foretold() {
        let counter: Vec<u32> = (0..20).map(|i| 64_000 * i).collect();
        assert_eq!(foretell(&counter).steps, 16);
        let mut x = 1u32;
        let congruence: Vec<_> = (0..20)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                x
            })
            .collect();
        assert!(foretell(&congruence).congruence >= 4);
    }

    #[test]
    fn chance_is_not_foretold() {
        let mut random = Random::new(1);
        let numbers: Vec<_> = (0..200)
            .map(|_| u32::try_from(random.word() >> 32).unwrap())
            .collect();
        assert_eq!(foretell(&numbers), Hits::default());
    }
}
