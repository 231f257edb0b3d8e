//! Paragraphs for a terminal.

/// Breaks `text` at spaces into lines of at most `width` characters. The first begins with
/// `first`, the others with `rest`; each ends with a line feed. A longer word is left whole.
pub(crate) fn wrap(text: &str, width: usize, first: &str, rest: &str) -> String {
    let mut wrapped = String::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            wrapped.push_str(&line);
            wrapped.push('\n');
            line = rest.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    wrapped.push_str(&line);
    wrapped.push('\n');
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_full_as_it_can_be_and_no_fuller() {
        assert_eq!(wrap("aa bb cc", 5, "", ""), "aa bb\ncc\n");
        assert_eq!(wrap("aa bb cc", 4, "", ""), "aa\nbb\ncc\n");
        assert_eq!(wrap("aa bb", 6, "- ", "  "), "- aa\n  bb\n");
        assert_eq!(wrap("abcdef g", 3, "", ""), "abcdef\ng\n");
        assert_eq!(wrap("", 3, "- ", ""), "- \n");
    }
}
