//! Which Kubernetes cluster the agent queries, from the configuration.

use std::fmt;
use std::str::FromStr;

/// Which cluster to query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cluster {
    /// The one that the agent runs in as a pod, if any.
    #[default]
    Own,
    /// None.
    Off,
    /// The one with this address, without credentials.
    At(http::Uri),
}

impl FromStr for Cluster {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Own),
            "off" => Ok(Self::Off),
            url => {
                let uri: http::Uri = url.parse().map_err(drop)?;
                if uri.scheme().is_some() && uri.host().is_some() {
                    Ok(Self::At(uri))
                } else {
                    Err(())
                }
            }
        }
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::At(uri) => write!(f, "{uri}"),
        }
    }
}
