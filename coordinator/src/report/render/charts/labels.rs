//! Places for the labels of points, so that none lies over another.

/// Widest character of the charts' font, and its line, in units of the picture.
const CHARACTER: f64 = 7.8;
const LINE: f64 = 16.0;
/// From a point to its label.
const GAP: f64 = 12.0;

/// Left, right, top, bottom.
type Rect = [f64; 4];

/// The labels placed so far, inside a frame.
pub struct Labels {
    frame: Rect,
    taken: Vec<Rect>,
}

impl Labels {
    pub fn new(left: f64, right: f64, top: f64, bottom: f64) -> Self {
        Self { frame: [left, right, top, bottom], taken: Vec::new() }
    }

    /// No label lies over this point.
    pub fn keep_clear(&mut self, x: f64, y: f64) {
        self.taken.push([x - 8.0, x + 8.0, y - 8.0, y + 8.0]);
    }

    /// Place and anchor of a label: beside its point, else lines above or below; `None` where all
    /// is taken.
    pub fn place(&mut self, x: f64, y: f64, text: &str) -> Option<(f64, f64, &'static str)> {
        let width = text.chars().count() as f64 * CHARACTER;
        for step in 0..=8 {
            for down in [f64::from(step) * LINE, -f64::from(step) * LINE] {
                for (anchor, at, left) in
                    [("start", x + GAP, x + GAP), ("end", x - GAP, x - GAP - width)]
                {
                    let baseline = y + 4.0 + down;
                    let wanted = [left, left + width, baseline - 11.0, baseline + 4.0];
                    if inside(wanted, self.frame) && !self.taken.iter().any(|b| overlap(wanted, *b))
                    {
                        self.taken.push(wanted);
                        return Some((at, baseline, anchor));
                    }
                }
            }
        }
        None
    }
}

fn inside(a: Rect, frame: Rect) -> bool {
    a[0] >= frame[0] && a[1] <= frame[1] && a[2] >= frame[2] && a[3] <= frame[3]
}

fn overlap(a: Rect, b: Rect) -> bool {
    a[0] < b[1] && b[0] < a[1] && a[2] < b[3] && b[2] < a[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_one_place_go_above_and_below_and_end_when_all_is_taken() {
        let mut labels = Labels::new(0.0, 300.0, 0.0, 100.0);
        labels.keep_clear(100.0, 50.0);
        let placed: Vec<_> = (0..40).filter_map(|_| labels.place(100.0, 50.0, "name")).collect();
        assert_eq!(placed[0], (112.0, 54.0, "start"));
        assert_eq!(placed[1], (88.0, 54.0, "end"));
        assert!(placed.len() > 6 && placed.len() < 40, "{}", placed.len());
        assert!(placed.iter().all(|(_, y, _)| *y < 100.0));
        assert_eq!(labels.place(100.0, 50.0, &"x".repeat(100)), None);
    }
}
