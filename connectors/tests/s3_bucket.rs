//! A bucket of the test server, and what another client than ours does with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::s3_server::Server;

/// An empty bucket of its own name.
pub struct Bucket {
    pub server: Arc<Server>,
    pub name: String,
    client: AmazonS3,
    runtime: tokio::runtime::Runtime,
}

impl Bucket {
    pub fn new(server: Arc<Server>) -> Bucket {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bucket-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        server.command(&format!("bucket {name}"));
        let client = AmazonS3Builder::new()
            .with_endpoint(&server.endpoint)
            .with_region(&server.region)
            .with_access_key_id(&server.access_key)
            .with_secret_access_key(&server.secret_key)
            .with_allow_http(true)
            .with_bucket_name(&name)
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Bucket { server, name, client, runtime }
    }

    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    pub fn put(&self, key: &str, bytes: impl Into<PutPayload>) {
        self.runtime.block_on(self.client.put(&Path::from(key), bytes.into())).unwrap();
    }

    pub fn delete(&self, key: &str) {
        self.runtime.block_on(self.client.delete(&Path::from(key))).unwrap();
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(async { self.client.get(&Path::from(key)).await?.bytes().await }).unwrap().to_vec()
    }

    /// Keys in a folder, in order.
    pub fn keys(&self, folder: &str) -> Vec<String> {
        let (mut keys, mut folders) = (Vec::new(), vec![Path::from(folder)]);
        while let Some(folder) = folders.pop() {
            let listed = self.runtime.block_on(self.client.list_with_delimiter(Some(&folder))).unwrap();
            keys.extend(listed.objects.into_iter().map(|meta| meta.location.to_string()));
            folders.extend(listed.common_prefixes);
        }
        keys.sort();
        keys
    }

    /// So many clients at once create one key; the numbers of those that were told they did.
    pub fn race(&self, key: &str, clients: usize) -> Vec<usize> {
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let (store, key) = (self.client.clone(), Path::from(key));
                self.runtime.spawn(async move {
                    match store.put_opts(&key, format!("{client}").into(), PutMode::Create.into()).await {
                        Ok(_) => true,
                        Err(object_store::Error::AlreadyExists { .. }) => false,
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        let won = tasks.into_iter().map(|task| self.runtime.block_on(task).unwrap());
        won.enumerate().filter(|(_, won)| *won).map(|(client, _)| client).collect()
    }
}
