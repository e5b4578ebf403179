//! The files of a directory as one state of the cluster. Pure: text in, changes out.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::{Path, PathBuf},
};

use super::{Change, Key, Resource, kinds};
use crate::yaml;

/// What each file holds. Of an object that several files define the one of the first path counts.
#[derive(Debug, Default)]
pub(crate) struct Files {
    settings: kinds::Settings,
    files: BTreeMap<PathBuf, File>,
    owners: BTreeMap<Key, BTreeSet<PathBuf>>,
}

#[derive(Debug, Default)]
struct File {
    /// The last good state.
    objects: BTreeMap<Key, Resource>,
    error: Option<yaml::Error>,
}

impl Files {
    pub(crate) fn new(settings: kinds::Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Files that are not in use as they are, in order of path.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &yaml::Error> {
        self.files.values().filter_map(|file| file.error.as_ref())
    }

    pub(crate) fn error(&self, path: &Path) -> Option<&yaml::Error> {
        self.files.get(path)?.error.as_ref()
    }

    /// Files that describe one running instance, with the socket that shows that it lives.
    pub(crate) fn instances(&self) -> impl Iterator<Item = (&PathBuf, &PathBuf)> {
        let own = self.files.iter().filter(|(path, _)| path.starts_with("endpoints"));
        own.filter_map(|(path, file)| {
            let mut sockets = file.objects.values().filter_map(|resource| match resource {
                Resource::Slice(slice) => slice.socket.as_ref(),
                Resource::Service(_) => None,
            });
            Some((path, sockets.next()?))
        })
    }

    /// A file's new text. A broken one changes nothing but its error, which is given back when it is a new one.
    pub(crate) fn write(&mut self, path: &Path, text: &str) -> (Vec<Change>, Option<yaml::Error>) {
        let shown = path.display().to_string();
        let parsed = yaml::documents(&shown, text, |document| {
            let at = document.error("");
            Ok(kinds::read(document, self.settings)?.map(|resource| (at, resource)))
        });
        let objects = parsed.and_then(|found| {
            let mut objects = BTreeMap::new();
            for (at, resource) in found {
                match objects.entry(resource.key()) {
                    Entry::Vacant(slot) => drop(slot.insert(resource)),
                    Entry::Occupied(_) => {
                        return Err(yaml::Error { message: "defined twice in this file".into(), ..at });
                    }
                }
            }
            Ok(objects)
        });
        match objects {
            Ok(objects) => (self.replace(path, Some(File { objects, error: None })), None),
            Err(error) => (Vec::new(), self.fail(path, error)),
        }
    }

    /// A file that cannot be read at all.
    pub(crate) fn fail(&mut self, path: &Path, error: yaml::Error) -> Option<yaml::Error> {
        let file = self.files.entry(path.to_owned()).or_default();
        let news = file.error.as_ref() != Some(&error);
        file.error = Some(error.clone());
        news.then_some(error)
    }

    pub(crate) fn remove(&mut self, path: &Path) -> Vec<Change> {
        self.replace(path, None)
    }

    fn replace(&mut self, path: &Path, file: Option<File>) -> Vec<Change> {
        let old = self.files.remove(path).unwrap_or_default().objects;
        let new = file.as_ref().map(|file| file.objects.keys().cloned().collect()).unwrap_or_default();
        let mut keys: BTreeSet<Key> = old.keys().cloned().collect();
        for key in keys.difference(&new) {
            if let Some(owners) = self.owners.get_mut(key) {
                owners.remove(path);
            }
        }
        for key in &new {
            self.owners.entry(key.clone()).or_default().insert(path.to_owned());
        }
        keys.extend(new);
        if let Some(file) = file {
            self.files.insert(path.to_owned(), file);
        }
        keys.into_iter().filter_map(|key| self.change(key, path, &old)).collect()
    }

    /// What became of `key` when `path` changed.
    fn change(&mut self, key: Key, path: &Path, old: &BTreeMap<Key, Resource>) -> Option<Change> {
        let Some(owner) = self.owners.get(&key).and_then(BTreeSet::first) else {
            self.owners.remove(&key);
            return Some(Change::Delete(key));
        };
        let resource = self.files.get(owner)?.objects.get(&key)?;
        // Either it is ours and as it was, or it is another's and was so before.
        let untouched = match old.get(&key) {
            before if owner == path => before == Some(resource),
            Some(_) => owner.as_path() < path,
            None => true,
        };
        if untouched { None } else { Some(Change::Apply(resource.clone())) }
    }
}

#[cfg(test)]
mod tests;
