//! Windows of fixed length. In: a time in its column's unit. Out: the windows [start, end) that hold it. Nothing wraps: a window that does
//! not fit the type is told, not cut.

/// Which windows there are. All lengths are in the unit of the time column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Windows {
    /// `[offset + k · slide, offset + k · slide + size)` for every whole k. TUMBLE: slide = size. A slide above the size leaves gaps, a slide
    /// that does not divide it is as good as any other.
    Hop { size: i64, slide: i64, offset: i64 },
    /// `[s, s + j · step)` for s = offset + k · size, every whole k, and j from 1 to size / step.
    Cumulate { size: i64, step: i64, offset: i64 },
}

impl Windows {
    /// The most windows one time may be in: a row is copied into each.
    pub const PER_ROW_MAX: i64 = 10_000;

    /// The windows that hold `time`, later ones first. False if one of them begins or ends beyond what an i64 holds; the rest was told then.
    pub fn each(&self, time: i64, mut window: impl FnMut(i64, i64)) -> bool {
        let mut told = |start: i128, end: i128| match (i64::try_from(start), i64::try_from(end)) {
            (Ok(start), Ok(end)) => {
                window(start, end);
                true
            }
            _ => false,
        };
        let at = i128::from(time);
        match *self {
            Windows::Hop { size, slide, offset } => {
                let (size, slide) = (i128::from(size), i128::from(slide));
                let mut start = at - (at - i128::from(offset)).rem_euclid(slide);
                while at - start < size {
                    if !told(start, start + size) {
                        return false;
                    }
                    start -= slide;
                }
                true
            }
            Windows::Cumulate { size, step, offset } => {
                let (size, step) = (i128::from(size), i128::from(step));
                let within = (at - i128::from(offset)).rem_euclid(size);
                let start = at - within;
                let mut length = size;
                while length > within {
                    if !told(start, start + length) {
                        return false;
                    }
                    length -= step;
                }
                true
            }
        }
    }

    /// How many windows a time is in at most.
    pub fn per_row(&self) -> i64 {
        match *self {
            Windows::Hop { size, slide, .. } => size / slide + i64::from(size % slide != 0),
            Windows::Cumulate { size, step, .. } => size / step,
        }
    }

    /// True if every time is in exactly one window.
    pub fn tumble(&self) -> bool {
        matches!(self, Windows::Hop { size, slide, .. } if size == slide)
    }

    /// Lengths are positive, and CUMULATE's step divides its size.
    pub fn is_sound(&self) -> bool {
        match *self {
            Windows::Hop { size, slide, .. } => size > 0 && slide > 0,
            Windows::Cumulate { size, step, .. } => size > 0 && step > 0 && size % step == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(windows: Windows, time: i64) -> Option<Vec<(i64, i64)>> {
        let mut found = Vec::new();
        windows.each(time, |start, end| found.push((start, end))).then_some(found)
    }

    #[test]
    fn windows_are_aligned_to_their_offset_before_1970_too() {
        let tumble = Windows::Hop { size: 10, slide: 10, offset: 3 };
        assert_eq!(found(tumble, 3), Some(vec![(3, 13)]));
        assert_eq!(found(tumble, 2), Some(vec![(-7, 3)]));
        assert_eq!(found(tumble, -7), Some(vec![(-7, 3)]));
        assert_eq!(found(tumble, -8), Some(vec![(-17, -7)]));
    }

    #[test]
    fn a_slide_that_does_not_divide_the_size_is_exact() {
        let hop = Windows::Hop { size: 10, slide: 4, offset: 0 };
        assert_eq!(found(hop, 9), Some(vec![(8, 18), (4, 14), (0, 10)]));
        assert_eq!(found(hop, 10), Some(vec![(8, 18), (4, 14)]));
        let gaps = Windows::Hop { size: 4, slide: 10, offset: 0 };
        assert_eq!(found(gaps, 13), Some(vec![(10, 14)]));
        assert_eq!(found(gaps, 14), Some(vec![]));
        assert_eq!((hop.per_row(), gaps.per_row()), (3, 1));
    }

    #[test]
    fn cumulating_windows_share_their_start() {
        let cumulate = Windows::Cumulate { size: 30, step: 10, offset: 0 };
        assert_eq!(found(cumulate, 10), Some(vec![(0, 30), (0, 20)]));
        assert_eq!(found(cumulate, -1), Some(vec![(-30, 0)]));
    }

    #[test]
    fn windows_at_the_ends_of_the_range_do_not_wrap() {
        let tumble = Windows::Hop { size: 10, slide: 10, offset: 0 };
        assert_eq!(found(tumble, i64::MAX), None);
        assert_eq!(found(tumble, i64::MIN), None);
        assert_eq!(found(tumble, i64::MAX - 10).map(|found| found.len()), Some(1));
        assert!(!Windows::Cumulate { size: 30, step: 7, offset: 0 }.is_sound());
    }
}
