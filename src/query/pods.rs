//! Which pods a local mesh has: one EndpointSlice file each under `endpoints/`, and one private socket each under
//! `.mesh/proxies/`. A pod with a file counts whether or not its proxy answers; a socket without a file is a pod that is
//! just starting or not serving yet, and counts if it answers.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::scrape::Source;
use crate::{model::name::Workload, yaml};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const WORKLOAD_ANNOTATION: &str = "mesh.dev/workload";
const SOCKET_ANNOTATION: &str = "mesh.dev/socket";

/// A pod, as far as it is known without asking its proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) workload: Option<Workload>,
    /// Services that it stands behind.
    pub(crate) services: Vec<String>,
    /// Where its proxy tells its figures; `None`: it has none.
    pub(crate) source: Option<Source>,
    /// Whether it exists even when its proxy does not answer.
    pub(crate) is_listed: bool,
}

/// The pods of the mesh in `dir`, by name. A slice that cannot be read is the controller's to report, not ours.
///
/// # Errors
/// A directory that cannot be listed; one that is missing holds nothing.
pub(crate) fn local(dir: &Path) -> io::Result<Vec<Pod>> {
    let mut pods = BTreeMap::<String, Pod>::new();
    for path in list(&dir.join(".mesh/proxies"), &["sock"])? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        pods.insert(name.clone(), Pod { name, source: Some(Source::Unix(path)), ..Pod::default() });
    }
    for path in list(&dir.join("endpoints"), &["yaml", "yml", "json"])? {
        // A file may vanish between listing and reading: its pod is gone.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for listed in slices(&path.to_string_lossy(), &text).into_iter().flat_map(|slice| listed(&slice, dir)) {
            let pod = pods.entry(listed.name.clone()).or_default();
            let services = [pod.services.as_slice(), &listed.services].concat();
            let source = listed.source.or(pod.source.take());
            *pod = Pod { services, source, ..listed };
        }
    }
    Ok(pods.into_values().collect())
}

fn list(dir: &Path, extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extensions.iter().any(|it| *it == extension)));
    paths.sort();
    Ok(paths)
}

fn slices(file: &str, text: &str) -> Vec<EndpointSlice> {
    let each = |document: yaml::Document<'_>| match document.head.kind.as_str() {
        "EndpointSlice" => document.read().map(Some),
        _ => Ok(None),
    };
    yaml::documents(file, text, each).unwrap_or_default()
}

fn listed(slice: &EndpointSlice, dir: &Path) -> Vec<Pod> {
    let metadata = &slice.metadata;
    let note = |key: &str| metadata.annotations.as_ref().and_then(|notes| notes.get(key)).map(String::as_str);
    let services = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL));
    let namespace = metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let pod = |name: String| Pod {
        namespace: namespace.clone(),
        name,
        workload: note(WORKLOAD_ANNOTATION).and_then(|workload| workload.parse().ok()),
        services: services.into_iter().cloned().collect(),
        source: note(SOCKET_ANNOTATION).map(|socket| Source::Unix(dir.join(socket))),
        is_listed: true,
    };
    let targets = slice.endpoints.iter().filter_map(|endpoint| endpoint.target_ref.as_ref());
    targets
        .filter(|target| target.kind.as_deref() == Some("Pod"))
        .filter_map(|target| target.name.clone())
        .map(pod)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_what_files_and_sockets_say_together() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("inside")).expect("made");
            fs::write(path, text).expect("written");
        };
        write(".mesh/proxies/new-1.sock", "");
        write(".mesh/proxies/web-1.sock", "");
        write("endpoints/broken.yaml", "{");
        write(
            "endpoints/web-1.yaml",
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  namespace: shop\n  labels: { kubernetes.io/service-name: web }\n  annotations:\n    mesh.dev/workload: shop/deploy/web\n    mesh.dev/socket: .mesh/proxies/web-1.sock\naddressType: IPv4\nendpoints:\n- addresses: [127.0.0.1]\n  targetRef: { kind: Pod, name: web-1, namespace: shop }\n",
        );
        let pods = local(dir.path()).expect("readable");
        let names: Vec<_> = pods.iter().map(|pod| (pod.name.as_str(), pod.is_listed)).collect();
        assert_eq!(names, [("new-1", false), ("web-1", true)]);
        assert_eq!(pods[1].workload, "shop/deploy/web".parse().ok());
        assert_eq!((pods[1].services.as_slice(), pods[1].namespace.as_str()), (&["web".to_owned()][..], "shop"));
        assert_eq!(pods[1].source, Some(Source::Unix(dir.path().join(".mesh/proxies/web-1.sock"))));
    }

    #[test]
    fn a_directory_without_anything_has_no_pods() {
        assert_eq!(local(Path::new("/nonexistent/mesh")).expect("missing is empty"), []);
    }
}
