//! Settings before they have types: the names there are, and where each value came from.
//!
//! Flag wins over variable, variable over file. Invariant: a name that is not in `NAMES` is refused with the nearest
//! that is; nothing is ignored silently.

use crate::failure::Failure;
use holdfast_coordinator::admin::Code;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Every setting, as the file names it; a dot leads into a table.
pub(crate) const NAMES: &[&str] = &[
    "data_dir",
    "s3_listen",
    "admin_listen",
    "backends",
    "scheme",
    "region",
    "zone",
    "domains",
    "log_format",
    "drain_seconds",
    "allow_faults",
    "cluster.listen",
    "cluster.join",
    "cluster.role",
    "tls.cert",
    "tls.key",
    "metadata.range_bytes_max",
    "objects.inline_bytes_max",
    "objects.write_buffer_bytes",
    "objects.read_buffer_bytes",
    "repair.missing_grace_seconds",
    "repair.bytes_per_second_max",
    "scrub.bytes_per_second_max",
    "scrub.period_days",
];

/// Variables that are no settings although their name begins like one.
const OTHER_VARIABLES: &[&str] =
    &["HOLDFAST_ADMIN", "HOLDFAST_ACCESS_KEY_ID", "HOLDFAST_SECRET_ACCESS_KEY", "HOLDFAST_LOG"];
/// From this likeness on (Jaro-Winkler) a name is taken for a slip.
const LIKENESS_MIN: f64 = 0.75;
/// A variable without `__` may be anybody's; only one this like a setting's is worth a warning.
const VARIABLE_LIKENESS_MIN: f64 = 0.93;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This flag.
    Flag(String),
    /// This variable.
    Variable(String),
    /// The settings file.
    File(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) | Self::File(name) => f.write_str(name),
        }
    }
}

/// A value as text, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) values: Vec<String>,
    pub(crate) origin: Origin,
}

/// All settings given, by name.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    given: BTreeMap<&'static str, Setting>,
    /// What is odd but no error.
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    /// Reads a settings file.
    pub(crate) fn read_file(&mut self, path: &Path) -> Result<(), Failure> {
        let unreadable =
            |why: String| Failure::usage(Code::UnreadableSettings, format!("settings file {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
        // The first line of a TOML error says where, the last says what; one line is enough for both.
        let table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| unreadable(e.to_string().trim().replace('\n', " ")))?;
        self.take_table("", &table, &path.display().to_string())
    }

    fn take_table(&mut self, prefix: &str, table: &toml::Table, file: &str) -> Result<(), Failure> {
        for (key, value) in table {
            let name = format!("{prefix}{key}");
            let is_table = NAMES.iter().any(|known| known.starts_with(&format!("{name}.")));
            match value {
                toml::Value::Table(inner) if is_table => self.take_table(&format!("{name}."), inner, file)?,
                _ => {
                    let known =
                        known(&name).ok_or_else(|| unknown(&format!("{name} in {file}"), &name, |n| n.into()))?;
                    let origin = Origin::File(format!("{name} in {file}"));
                    let values = texts(value).ok_or_else(|| {
                        Failure::usage(
                            Code::InvalidSetting,
                            format!("{origin}: a text, a number or a list of texts is needed"),
                        )
                    })?;
                    self.given.insert(known, Setting { values, origin });
                }
            }
        }
        Ok(())
    }

    /// Reads `HOLDFAST_NAME` and `HOLDFAST_TABLE__NAME`. Lists are separated by commas.
    pub(crate) fn read_environment(&mut self, environment: &BTreeMap<String, String>) -> Result<(), Failure> {
        for (variable, value) in environment {
            let Some(rest) = variable.strip_prefix("HOLDFAST_") else { continue };
            if OTHER_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            let name = rest.to_ascii_lowercase().replace("__", ".");
            if let Some(known) = known(&name) {
                let values = if is_list(known) {
                    value.split(',').map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
                } else {
                    vec![value.clone()]
                };
                self.given.insert(known, Setting { values, origin: Origin::Variable(variable.clone()) });
            } else if rest.contains("__") {
                return Err(unknown(variable, &name, variable_name));
            } else if let Some(near) = nearest(&name, VARIABLE_LIKENESS_MIN) {
                self.warnings.push(format!("variable {variable} is no setting; is {} meant?", variable_name(near)));
            }
        }
        Ok(())
    }

    /// Takes a flag that was given.
    pub(crate) fn take_flag(&mut self, name: &'static str, flag: &str, values: Vec<String>) {
        debug_assert!(NAMES.contains(&name), "{name} is a setting");
        if !values.is_empty() {
            self.given.insert(name, Setting { values, origin: Origin::Flag(flag.to_owned()) });
        }
    }

    /// The value of a setting that has one.
    pub(crate) fn text(&self, name: &str) -> Result<Option<(&str, &Origin)>, Failure> {
        let Some(setting) = self.given.get(name) else { return Ok(None) };
        match setting.values.as_slice() {
            [one] => Ok(Some((one, &setting.origin))),
            _ => Err(Failure::usage(Code::InvalidSetting, format!("{}: one value is needed", setting.origin))),
        }
    }

    /// The values of a setting that may have several.
    pub(crate) fn list(&self, name: &str) -> Option<(&[String], &Origin)> {
        self.given.get(name).map(|setting| (setting.values.as_slice(), &setting.origin))
    }

    /// The value through `parse`; a refusal names where the value came from.
    pub(crate) fn parsed<T, E: fmt::Display>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Failure> {
        let Some((text, origin)) = self.text(name)? else { return Ok(None) };
        parse(text).map(Some).map_err(|e| invalid(origin, &e))
    }
}

/// A value that cannot be used, with where it came from.
pub(crate) fn invalid(origin: &Origin, why: &dyn fmt::Display) -> Failure {
    Failure::usage(Code::InvalidSetting, format!("{origin}: {why}"))
}

fn known(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|known| **known == name).copied()
}

fn is_list(name: &str) -> bool {
    matches!(name, "backends" | "domains")
}

fn variable_name(name: &str) -> String {
    format!("HOLDFAST_{}", name.replace('.', "__").to_ascii_uppercase())
}

/// Jaro-Winkler, which does not see one slip in a word of three letters.
fn alike(known: &str, name: &str) -> f64 {
    let one_slip = if strsim::osa_distance(known, name) == 1 { 0.9 } else { 0.0 };
    strsim::jaro_winkler(known, name).max(one_slip)
}

fn nearest(name: &str, likeness_min: f64) -> Option<&'static str> {
    // A name without its table may be meant (`cert` for `tls.cert`), or the table may be misspelt (`tsl`).
    let likeness = |known: &str| {
        let (table, last) = known.split_once('.').unwrap_or((known, known));
        [known, table, last].iter().map(|part| alike(part, name)).fold(0.0, f64::max)
    };
    // The first of equals: `max_by` alone would take the last.
    let best = NAMES.iter().rev().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= likeness_min).then_some(*best)
}

fn unknown(place: &str, name: &str, spell: impl Fn(&'static str) -> String) -> Failure {
    let failure = Failure::usage(Code::UnknownSetting, format!("unknown setting {place}"));
    match nearest(name, LIKENESS_MIN) {
        Some(near) => failure.or_try(spell(near)),
        None => failure.or_try(format!("one of {}", NAMES.join(", "))),
    }
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    fn file(text: &str) -> Result<Settings, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holdfast.toml");
        std::fs::write(&path, text).unwrap();
        let mut settings = Settings::default();
        settings.read_file(&path).map(|()| settings)
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        let cases = [
            ("s3_lisen = \"127.0.0.1:1\"", "s3_listen"),
            ("data-dir = \"x\"", "data_dir"),
            ("[tls]\ncrt = \"x\"", "tls.cert"),
            ("[tsl]\ncert = \"x\"", "tls.cert"),
            ("cert = \"x\"", "tls.cert"),
            ("[objects]\ninline_bytes = 1", "objects.inline_bytes_max"),
            ("zzz = 1", "one of data_dir"),
        ];
        for (text, nearest) in cases {
            let failure = file(text).unwrap_err();
            assert_eq!(failure.exit as u8, 2, "{text}");
            assert!(failure.next_step.starts_with(nearest), "{text}: {failure}");
            assert_eq!(failure.message.lines().count(), 1, "{failure}");
        }
    }

    #[test]
    fn unknown_variables_are_refused_or_warned_of() {
        let mut settings = Settings::default();
        let failure = settings.read_environment(&environment(&[("HOLDFAST_TLS__CRT", "x")])).unwrap_err();
        assert_eq!(failure.next_step, "HOLDFAST_TLS__CERT");
        let others = [("HOLDFAST_BIN", "x"), ("HOLDFAST_CLIENTS", "y"), ("HOLDFAST_ACCESS_KEY_ID", "k"), ("PATH", "z")];
        settings.read_environment(&environment(&others)).unwrap();
        assert_eq!(settings.warnings, Vec::<String>::new());
        settings.read_environment(&environment(&[("HOLDFAST_S3_LISEN", "x")])).unwrap();
        assert_eq!(settings.warnings.len(), 1);
        assert!(settings.warnings[0].contains("HOLDFAST_S3_LISTEN"), "{:?}", settings.warnings);
    }

    #[test]
    fn flag_wins_over_variable_over_file() {
        let mut settings = file("region = \"file\"\nscheme = \"4+2\"\nbackends = [\"disk:/a\", \"disk:/b\"]").unwrap();
        assert_eq!(settings.text("region").unwrap().map(|(v, _)| v), Some("file"));
        settings
            .read_environment(&environment(&[("HOLDFAST_REGION", "variable"), ("HOLDFAST_DOMAINS", "a, b")]))
            .unwrap();
        assert_eq!(settings.text("region").unwrap().map(|(v, _)| v), Some("variable"));
        assert_eq!(settings.list("domains").unwrap().0, ["a", "b"]);
        settings.take_flag("region", "--region", vec!["flag".into()]);
        settings.take_flag("scheme", "--scheme", Vec::new());
        let (value, origin) = settings.text("region").unwrap().unwrap();
        assert_eq!((value, origin), ("flag", &Origin::Flag("--region".into())));
        assert_eq!(settings.text("scheme").unwrap().map(|(v, _)| v), Some("4+2"), "a flag not given changes nothing");
        assert_eq!(settings.list("backends").unwrap().0.len(), 2);
    }

    #[test]
    fn values_of_the_wrong_form_are_refused() {
        for text in ["region = true", "backends = [1]", "region = {}", "scheme = 1.5"] {
            assert_eq!(file(text).unwrap_err().code, "HF1002", "{text}");
        }
        assert_eq!(file("region = ").unwrap_err().code, "HF1003");
        assert_eq!(file("region = [\"a\", \"b\"]").unwrap().text("region").unwrap_err().code, "HF1002");
        let mut settings = Settings::default();
        assert_eq!(settings.read_file(Path::new("/nonexistent/f")).unwrap_err().code, "HF1003");
    }
}
