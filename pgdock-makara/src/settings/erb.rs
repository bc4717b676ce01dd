//! The little Ruby that a `database.yml` needs: variables of the environment.
//!
//! Ruby fills a template in before it reads the YAML. Here each tag is put aside first and answered after, so that no
//! value can change the structure of the file.

use super::SettingsError;

/// Characters for private use mark the place of a tag: YAML takes them for ordinary ones.
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// A file without its tags.
#[derive(Debug)]
pub(super) struct Template<'a> {
    /// The text, with a mark in the place of each tag.
    pub(super) text: String,
    tags: Vec<&'a str>,
}

impl<'a> Template<'a> {
    /// Puts the tags of a file aside.
    pub(super) fn parse(file: &'a str) -> Result<Self, SettingsError> {
        if file.contains([OPEN, CLOSE]) {
            return Err(SettingsError::new("(none)", "the file has characters for private use, U+E000 or U+E001"));
        }
        let mut template = Self { text: String::with_capacity(file.len()), tags: Vec::new() };
        let mut rest = file;
        while let Some((before, behind)) = rest.split_once("<%") {
            template.text.push_str(before);
            let Some((tag, behind)) = behind.split_once("%>") else {
                let line = template.text.lines().count();
                return Err(SettingsError::new("(none)", format!("an ERB tag does not end. line={line}")));
            };
            template.text.push_str(&format!("{OPEN}{}{CLOSE}", template.tags.len()));
            template.tags.push(tag.trim_end_matches('-'));
            rest = behind;
        }
        template.text.push_str(rest);
        Ok(template)
    }

    /// Fills in every mark of a value.
    pub(super) fn fill(
        &self,
        key: &str,
        value: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<String, SettingsError> {
        let mut rest = value;
        let mut filled = String::new();
        while let Some((before, behind)) = rest.split_once(OPEN) {
            let (number, behind) = behind.split_once(CLOSE).unwrap_or((behind, ""));
            let tag = number.parse().ok().and_then(|number: usize| self.tags.get(number));
            let tag = tag.ok_or_else(|| SettingsError::new(key, "an ERB tag is cut in two"))?;
            filled.push_str(before);
            filled.push_str(&evaluate(key, tag, variable)?);
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

fn evaluate(key: &str, tag: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, SettingsError> {
    let foreign = || {
        SettingsError::new(key, "this ERB does more than read a variable of the environment")
            .hint("write <%= ENV['NAME'] %>, <%= ENV.fetch('NAME', 'default') %> or <%= ENV['NAME'] || 'default' %>")
    };
    let expression = tag.strip_prefix('=').ok_or_else(foreign)?.trim();
    let (name, default) = parse(expression).ok_or_else(foreign)?;
    match variable(name).or_else(|| default.map(str::to_owned)) {
        Some(value) => Ok(value),
        None => Err(SettingsError::new(key, format!("this needs a variable that is not set. variable={name}"))),
    }
}

/// The name of the variable, and its default.
fn parse(expression: &str) -> Option<(&str, Option<&str>)> {
    let behind = expression.strip_prefix("ENV")?;
    if let Some(behind) = behind.strip_prefix('[') {
        let (name, behind) = quoted(behind)?;
        let behind = behind.trim_start().strip_prefix(']')?.trim_start();
        return match behind.strip_prefix("||") {
            Some(default) => Some((name, Some(literal(default)?))),
            None => behind.is_empty().then_some((name, None)),
        };
    }
    let (name, behind) = quoted(behind.strip_prefix(".fetch")?.trim_start().strip_prefix('(')?)?;
    let arguments = behind.trim().strip_suffix(')')?.trim();
    match arguments.strip_prefix(',') {
        Some(default) => Some((name, Some(literal(default)?))),
        None => arguments.is_empty().then_some((name, None)),
    }
}

/// A string in quotes, and what stands behind it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote).filter(|(inside, _)| !inside.contains(['\\', '#']))
}

/// A default: a string in quotes, or a number.
fn literal(text: &str) -> Option<&str> {
    let text = text.trim();
    match quoted(text) {
        Some((inside, "")) => Some(inside),
        Some(_) => None,
        None => (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')).then_some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(value: &str) -> Result<String, SettingsError> {
        let template = Template::parse(value)?;
        template.fill("k", &template.text, &|name| (name == "A").then(|| "a: #b".to_owned()))
    }

    #[test]
    fn variables_and_their_defaults_are_put_in() {
        for (value, expected) in [
            ("plain", "plain"),
            ("<%= ENV['A'] %>", "a: #b"),
            ("<%=ENV[\"A\"]-%>", "a: #b"),
            ("<%= ENV.fetch('A') %>/<%= ENV.fetch(\"B\", 7) %>", "a: #b/7"),
            ("<%= ENV['B'] || 'x' %>", "x"),
            ("<%= ENV.fetch('B', '') %>", ""),
        ] {
            assert_eq!(expanded(value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn other_ruby_and_missing_variables_are_errors_that_name_the_key() {
        for value in [
            "<%= ENV['B'] %>",
            "<%= `id` %>",
            "<% ENV['A'] %>",
            "<%= ENV['A'].to_i %>",
            "<%= ENV['A' %>",
            "<%= ENV.fetch('B') { 1 } %>",
            "<%= ENV['B'] || x %>",
            "<%= ENV.fetch('B', \"#{x}\") %>",
            "<%# note %>",
        ] {
            assert_eq!(expanded(value).expect_err(value).key(), "k");
        }
    }

    #[test]
    fn a_file_whose_tags_cannot_be_told_from_its_text_is_refused() {
        assert!(Template::parse("a: 1\nb: <%= ENV['A']").unwrap_err().to_string().contains("line=2"));
        assert!(Template::parse("a: \u{e000}0\u{e001}").is_err());
    }
}
