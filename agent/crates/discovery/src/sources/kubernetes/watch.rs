//! Lists the objects of one kind and follows their changes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use kube::Client;
use kube::core::WatchEvent;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::super::supervise::{FIRST_PAUSE, LAST_PAUSE};
use super::super::{Publisher, root_cause};
use super::objects::{List, Metadata, Object};
use super::{MAX_OBJECTS, News};

/// Maximum number of objects per page.
const PAGE: usize = 500;
/// The API server ends a watch after this time, so that a dead connection is noticed.
const WATCH_SECONDS: u64 = 290;
/// Timeout of a page.
const PAGE_WITHIN: Duration = Duration::from_secs(30);

/// A change of the objects of a kind.
pub(super) enum Change<T> {
    /// These are all.
    All(Vec<T>),
    /// This one is new or has changed.
    Put(Box<T>),
    /// The object with this key was deleted.
    Gone(Box<T>),
    /// They are forbidden, or could not be read.
    Refused(String),
}

/// The objects of a kind.
pub(super) struct Part<T> {
    /// By namespace and name.
    objects: HashMap<(String, String), T>,
    listed: bool,
    refusal: Option<String>,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self { objects: HashMap::new(), listed: false, refusal: None }
    }
}

impl<T: Object> Part<T> {
    pub(super) fn take(&mut self, change: Change<T>) {
        match change {
            Change::All(objects) => {
                self.objects = objects
                    .into_iter()
                    .take(MAX_OBJECTS)
                    .map(|object| (key(object.metadata()), object))
                    .collect();
                self.listed = true;
                self.refusal = None;
            }
            Change::Put(object) => {
                let key = key(object.metadata());
                if self.objects.len() < MAX_OBJECTS || self.objects.contains_key(&key) {
                    self.objects.insert(key, *object);
                }
            }
            Change::Gone(object) => {
                self.objects.remove(&key(object.metadata()));
            }
            Change::Refused(why) => self.refusal = Some(why),
        }
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &T> {
        self.objects.values()
    }

    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }
}

/// Lists and watches until the task ends; errors are reported and retried.
pub(super) async fn follow<T>(
    client: &Client,
    publisher: &Publisher,
    path: &str,
    selector: &str,
    news: &mpsc::Sender<News>,
    wrap: fn(Change<T>) -> News,
) -> Infallible
where
    T: Object + Clone + DeserializeOwned + Send + 'static,
{
    let news = Sender { news: news.clone(), wrap };
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        publisher.looked_up();
        match list::<T>(client, path, selector).await {
            Ok((objects, version)) => {
                news.send(Change::All(objects)).await;
                if let Err(why) = watch(client, publisher, path, selector, version, &news).await {
                    tracing::debug!("{path} is listed again: {why}");
                }
            }
            Err(why) => {
                publisher.failed();
                news.send(Change::Refused(why)).await;
            }
        }
        pause =
            if began.elapsed() > LAST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LAST_PAUSE) };
        sleep(pause).await;
    }
}

/// Where changes of one kind go.
struct Sender<T> {
    news: mpsc::Sender<News>,
    wrap: fn(Change<T>) -> News,
}

impl<T> Sender<T> {
    async fn send(&self, change: Change<T>) {
        // The receiver exists as long as this task; without it the change is not needed.
        drop(self.news.send((self.wrap)(change)).await);
    }
}

/// All objects, and the version of the list.
async fn list<T>(client: &Client, path: &str, selector: &str) -> Result<(Vec<T>, String), String>
where
    T: Clone + DeserializeOwned,
{
    let mut objects = Vec::new();
    let mut go_on = String::new();
    loop {
        let uri = format!("{path}?limit={PAGE}&continue={go_on}&{selector}");
        let request =
            http::Request::get(uri).body(Vec::new()).map_err(|error| error.to_string())?;
        let answer = timeout(PAGE_WITHIN, client.request::<List<T>>(request)).await;
        let page = answer.map_err(|_| "no answer".to_owned())?.map_err(|error| problem(&error))?;
        objects.extend(page.items);
        if page.metadata.go_on.is_empty() || objects.len() >= MAX_OBJECTS {
            return Ok((objects, page.metadata.resource_version));
        }
        go_on = page.metadata.go_on;
    }
}

/// Follows changes since `version`, over as many streams as it takes, until a new list is needed.
async fn watch<T>(
    client: &Client,
    publisher: &Publisher,
    path: &str,
    selector: &str,
    mut version: String,
    news: &Sender<T>,
) -> Result<(), String>
where
    T: Object + Clone + DeserializeOwned,
{
    loop {
        publisher.looked_up();
        let began = Instant::now();
        let uri = format!(
            "{path}?watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}&{selector}"
        );
        let request =
            http::Request::get(uri).body(Vec::new()).map_err(|error| error.to_string())?;
        let opened = timeout(PAGE_WITHIN, client.request_events::<T>(request)).await;
        let events =
            opened.map_err(|_| "no answer".to_owned())?.map_err(|error| problem(&error))?;
        let mut events = pin!(events);
        let silence = Duration::from_secs(WATCH_SECONDS) + PAGE_WITHIN;
        while let Some(event) = timeout(silence, events.try_next())
            .await
            .map_err(|_| "the stream is silent".to_owned())?
            .map_err(|error| problem(&error))?
        {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version.clone_from(&object.metadata().resource_version);
                    news.send(Change::Put(Box::new(object))).await;
                }
                WatchEvent::Deleted(object) => {
                    version.clone_from(&object.metadata().resource_version);
                    news.send(Change::Gone(Box::new(object))).await;
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                // Mostly that the version is too old (410): then only a new list helps.
                WatchEvent::Error(status) => return Err(status.message.clone()),
            }
        }
        // A stream that ends at once would make a busy loop of this.
        if began.elapsed() < FIRST_PAUSE {
            sleep(FIRST_PAUSE).await;
        }
    }
}

/// Why the API server gave no list: its own message, or the system's error.
fn problem(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => root_cause(error),
    }
}

fn key(metadata: &Metadata) -> (String, String) {
    (metadata.namespace.clone(), metadata.name.clone())
}
