//! Objects of a bucket: files in, files out.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use async_nats::jetstream::object_store::{
    GetErrorKind, InfoErrorKind, ObjectInfo, ObjectMetadata, ObjectStore,
};
use async_nats::{HeaderName, HeaderValue};
use base64::{Engine, prelude::BASE64_URL_SAFE};
use clap::Args;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::cli::api::{self, Api};
use crate::cli::bucket::{self, Kind};
use crate::cli::output::{Boxed, Columns};
use crate::cli::{Context, Failure, message, output, units};

/// From here on a transfer shows its progress, at a terminal.
const PROGRESS_BYTES_MIN: u64 = 1024 * 1024;

/// Opens a bucket that is there.
pub(super) async fn open(bucket: &str, context: &Context) -> Result<ObjectStore, Failure> {
    let api = Api::connect(context).await?;
    let stream = api.stream(&Kind::Object.stream(bucket)?).await;
    stream.map_err(|failure| Kind::Object.explain(bucket, failure))?;
    api.jetstream()
        .get_object_store(bucket)
        .await
        .map_err(Failure::failed)
}

/// Puts a file into a bucket
#[derive(Args, Debug)]
pub struct Put {
    /// Bucket to put it into
    bucket: String,
    /// File to put; without one, or with `-`, stdin (then --name is needed)
    file: Option<PathBuf>,
    /// Name of the object (default: the path of the file as given)
    #[arg(long)]
    name: Option<String>,
    /// What the object is
    #[arg(long)]
    description: Option<String>,
    /// Adds a header, as often as needed
    #[arg(long, short = 'H', value_name = "K:V", value_parser = message::header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Sets metadata, as often as needed
    #[arg(long, value_name = "KEY=VALUE", value_parser = api::pair)]
    metadata: Vec<(String, String)>,
    /// Bytes a chunk
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    chunk_size: Option<i64>,
    /// Shows no progress bar
    #[arg(long)]
    no_progress: bool,
    /// Replaces an object of this name without asking
    #[arg(long, short)]
    force: bool,
}

impl Put {
    /// Puts it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let file = self.file.as_deref().filter(|file| *file != Path::new("-"));
        let name = match (&self.name, file) {
            (Some(name), _) => name.clone(),
            (None, Some(file)) => file.display().to_string(),
            (None, None) => {
                return Err(Failure::usage("the object needs a name").hint("give one with --name"));
            }
        };
        let (source, size): (Box<dyn AsyncRead + Unpin + Send>, u64) = match file {
            Some(path) => {
                let file = tokio::fs::File::open(path)
                    .await
                    .map_err(|error| at(path, &error))?;
                let size = file.metadata().await.map_err(|error| at(path, &error))?.len();
                (Box::new(file), size)
            }
            None => (Box::new(tokio::io::stdin()), 0),
        };
        let store = open(&self.bucket, context).await?;
        if !self.force && output::can_ask() && store.info(&name).await.is_ok_and(|info| !info.deleted) {
            output::confirm(
                &format!("Replace existing object {} > {name}?", self.bucket),
                false,
            )?;
        }
        let metadata = ObjectMetadata {
            name: name.clone(),
            description: self.description,
            chunk_size: self
                .chunk_size
                .and_then(|size| usize::try_from(size).ok())
                .filter(|size| *size > 0),
            metadata: self.metadata.into_iter().collect(),
            headers: Some(message::headers(&self.header)).filter(|headers| !headers.is_empty()),
        };
        let bar = progress(size, self.no_progress);
        let mut source = Counted {
            source,
            bar: bar.clone(),
        };
        let info = store.put(metadata, &mut source).await;
        bar.finish_and_clear();
        let info = info.map_err(|error| broken(&name, &error))?;
        match context.json {
            true => output::print_json(&object_json(&info)?),
            false => print_info(&info),
        }
    }
}

/// A source that moves a progress bar.
struct Counted<R> {
    source: R,
    bar: ProgressBar,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.source).poll_read(context, buffer);
        self.bar.inc((buffer.filled().len() - before) as u64);
        polled
    }
}

fn progress(size: u64, off: bool) -> ProgressBar {
    if off || size < PROGRESS_BYTES_MIN || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    );
    let bar = ProgressBar::new(size);
    bar.set_style(style.expect("the template is well-formed"));
    bar
}

fn at(path: &Path, error: &io::Error) -> Failure {
    let what = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound => Failure::not_found(what),
        _ => Failure::failed(what),
    }
}

fn broken(name: &str, error: &dyn std::error::Error) -> Failure {
    let mut what = format!("{name}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        what += &format!(": {inner}");
        cause = inner.source();
    }
    Failure::failed(what)
}

fn missing(bucket: &str, name: &str) -> Failure {
    Failure::not_found(format!("{bucket} > {name} is not there"))
        .hint(format!("`mesh object ls {bucket}` shows the objects"))
}

/// Gets an object out of a bucket
#[derive(Args, Debug)]
pub struct Get {
    /// Bucket to get it from
    bucket: String,
    /// Name of the object
    file: String,
    /// File to write; `-` is stdout (default: the last part of the object's name, here)
    #[arg(long, short = 'O', value_name = "FILE")]
    output: Option<PathBuf>,
    /// Shows no progress bar
    #[arg(long)]
    no_progress: bool,
    /// Replaces an existing file without asking
    #[arg(long, short)]
    force: bool,
}

impl Get {
    /// Gets it: into a file beside the target first, so that a failure leaves no half of an object.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = open(&self.bucket, context).await?;
        let mut object = store.get(&self.file).await.map_err(|error| match error.kind() {
            GetErrorKind::NotFound => missing(&self.bucket, &self.file),
            _ => broken(&self.file, &error),
        })?;
        let size = object.info().size as u64;
        let bar = progress(size, self.no_progress);
        if self.output.as_deref() == Some(Path::new("-")) {
            return self.print(&mut object, &bar).await;
        }
        let target = match &self.output {
            Some(path) => path.clone(),
            // Names come from others: none may point out of this directory.
            None => Path::new(&self.file)
                .file_name()
                .map(PathBuf::from)
                .ok_or_else(|| {
                    Failure::usage(format!("{:?} is no file name", self.file)).hint("give one with --output")
                })?,
        };
        if target.exists() {
            output::confirm(
                &format!("Replace existing file {}?", target.display()),
                self.force,
            )?;
        }
        let started = Instant::now();
        let mut partial = target.clone().into_os_string();
        partial.push(format!(".{}.part", nuid::next()));
        let partial = PathBuf::from(partial);
        let received = receive(&mut object, &partial, &bar).await;
        bar.finish_and_clear();
        if let Err(failure) = received {
            tokio::fs::remove_file(&partial).await.ok();
            return Err(failure);
        }
        tokio::fs::rename(&partial, &target)
            .await
            .map_err(|error| at(&target, &error))?;
        if context.json {
            return output::print_json(&object_json(object.info())?);
        }
        output::note(format!(
            "Wrote: {} to {} in {}",
            units::show_bytes(size),
            target.display(),
            units::show_duration(started.elapsed())
        ));
        Ok(())
    }

    async fn print(&self, object: &mut (impl AsyncRead + Unpin), bar: &ProgressBar) -> Result<(), Failure> {
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match object
                .read(&mut buffer)
                .await
                .map_err(|error| broken(&self.file, &error))?
            {
                0 => break,
                read => output::write(&buffer[..read])?,
            }
            bar.inc(buffer.len() as u64);
        }
        bar.finish_and_clear();
        Ok(())
    }
}

async fn receive(
    object: &mut (impl AsyncRead + Unpin),
    path: &Path,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut file = tokio::fs::File::create(path)
        .await
        .map_err(|error| at(path, &error))?;
    let mut source = Counted {
        source: object,
        bar: bar.clone(),
    };
    let copied = tokio::io::copy(&mut source, &mut file).await;
    copied.map_err(|error| Failure::failed(format!("the object did not come whole: {error}")))?;
    file.flush().await.map_err(|error| at(path, &error))
}

/// Deletes an object, or a bucket with all in it
#[derive(Args, Debug)]
pub struct Delete {
    /// Bucket to delete from
    bucket: String,
    /// Object to delete; without one the bucket goes
    file: Option<String>,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Delete {
    /// Deletes it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(name) = &self.file else {
            return bucket::remove(Kind::Object, &self.bucket, self.force, context).await;
        };
        output::confirm(&format!("Really delete {} > {name}?", self.bucket), self.force)?;
        let store = open(&self.bucket, context).await?;
        find(&store, &self.bucket, name).await?;
        store.delete(name).await.map_err(|error| broken(name, &error))?;
        output::note(format!("Removed {} > {name}", self.bucket));
        Ok(())
    }
}

async fn find(store: &ObjectStore, bucket: &str, name: &str) -> Result<ObjectInfo, Failure> {
    let info = store.info(name).await.map_err(|error| match error.kind() {
        InfoErrorKind::NotFound => missing(bucket, name),
        _ => broken(name, &error),
    })?;
    match info.deleted {
        true => Err(missing(bucket, name)),
        false => Ok(info),
    }
}

/// Shows a bucket, or an object in it
#[derive(Args, Debug)]
pub struct Info {
    /// Bucket to look at
    bucket: String,
    /// Object to look at
    file: Option<String>,
}

impl Info {
    /// Shows it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(name) = &self.file else {
            return bucket::show(Kind::Object, &self.bucket, context).await;
        };
        let store = open(&self.bucket, context).await?;
        let info = find(&store, &self.bucket, name).await?;
        match context.json {
            true => output::print_json(&object_json(&info)?),
            false => print_info(&info),
        }
    }
}

fn modified(info: &ObjectInfo) -> Option<Timestamp> {
    Timestamp::from_nanosecond(info.modified?.unix_timestamp_nanos()).ok()
}

fn print_info(info: &ObjectInfo) -> Result<(), Failure> {
    let mut columns = Columns::new();
    columns.some(
        "Description",
        info.description.as_deref().filter(|text| !text.is_empty()),
    );
    columns.row("Size", units::show_bytes(info.size as u64));
    columns.some("Modification Time", modified(info).map(units::show_time));
    columns.row("Chunks", units::show_count(info.chunks as u64));
    columns.some("Digest", info.digest.as_deref().map(show_digest));
    for line in info.headers.iter().flat_map(message::header_lines) {
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        columns.row(name, value);
    }
    columns.section("Metadata");
    let mut metadata: Vec<_> = info.metadata.iter().collect();
    metadata.sort();
    for (key, value) in metadata {
        columns.row(key, value);
    }
    columns.print(&format!("Object information for {} > {}", info.bucket, info.name))
}

/// `SHA-256=<base64>` as `SHA-256 <hex>`, which is what other tools print.
fn show_digest(digest: &str) -> String {
    let Some((kind, encoded)) = digest.split_once('=') else {
        return digest.to_owned();
    };
    match BASE64_URL_SAFE.decode(encoded) {
        Ok(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{kind} {hex}")
        }
        Err(_) => digest.to_owned(),
    }
}

fn object_json(info: &ObjectInfo) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(info).map_err(Failure::failed)?;
    if let (Some(object), Some(time)) = (value.as_object_mut(), modified(info)) {
        object.insert("mtime".to_owned(), time.to_string().into());
    }
    Ok(value)
}

/// Lists the buckets, or the objects of a bucket
#[derive(Args, Debug)]
pub struct List {
    /// Bucket to list the objects of
    bucket: Option<String>,
    /// Names only
    #[arg(long, short)]
    names: bool,
}

impl List {
    /// Lists them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Some(bucket) = &self.bucket else {
            return bucket::list(Kind::Object, self.names, context).await;
        };
        let store = open(bucket, context).await?;
        let mut objects = Vec::new();
        let mut list = store.list().await.map_err(|error| broken(bucket, &error))?;
        while let Some(info) = list.next().await {
            objects.push(info.map_err(|error| broken(bucket, &error))?);
        }
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        if self.names && !context.json {
            return objects.iter().try_for_each(|info| output::print(&info.name));
        }
        if self.names {
            return output::print_json(&objects.iter().map(|info| &info.name).collect::<Vec<_>>());
        }
        if context.json {
            return output::print_json(&objects.iter().map(object_json).collect::<Result<Vec<_>, _>>()?);
        }
        if objects.is_empty() {
            output::note("No entries found");
            return Ok(());
        }
        let mut table = Boxed::new(format!("Bucket Contents of {bucket}"), &["Name", "Size", "Time"]);
        for info in &objects {
            table.row([
                info.name.clone(),
                units::show_bytes(info.size as u64),
                modified(info).map(units::show_time).unwrap_or_default(),
            ]);
        }
        table.print()
    }
}

/// Prints changes of a bucket as they happen, until Ctrl-C
#[derive(Args, Debug)]
pub struct Watch {
    /// Bucket to watch
    bucket: String,
    /// Ends after this many
    #[arg(long)]
    count: Option<u64>,
}

impl Watch {
    /// Prints them.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let store = open(&self.bucket, context).await?;
        let mut changes = store
            .watch_with_history()
            .await
            .map_err(|error| broken(&self.bucket, &error))?;
        let mut ending = std::pin::pin!(output::interrupted());
        output::note(format!("Watching {}", self.bucket));
        let mut shown = 0;
        while self.count.is_none_or(|limit| shown < limit) {
            let change = tokio::select! {
                change = changes.next() => change,
                () = &mut ending => None,
            };
            let Some(change) = change else { break };
            let info = change.map_err(|error| broken(&self.bucket, &error))?;
            shown += 1;
            if context.json {
                output::print_json_line(&object_json(&info)?)?;
                continue;
            }
            let time = modified(&info).map(units::show_time).unwrap_or_default();
            output::print(match info.deleted {
                true => format!("[{time}] DEL {} > {}", info.bucket, info.name),
                false => format!(
                    "[{time}] PUT {} > {}: {} in {} chunks",
                    info.bucket,
                    info.name,
                    units::show_bytes(info.size as u64),
                    units::show_count(info.chunks as u64)
                ),
            })?;
        }
        Ok(())
    }
}
