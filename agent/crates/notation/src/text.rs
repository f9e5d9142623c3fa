//! Types that have one text form, in JSON and YAML too.

/// The conversions for `#[serde(into = "String", try_from = "String")]`, by `Display` and
/// `FromStr`.
macro_rules! in_text {
    ($type:ty) => {
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }

        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    };
}
pub(crate) use in_text;
