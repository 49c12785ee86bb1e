//! Files with secrets: readable for their user alone, and there whole or not at all.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::CliError;

/// A file that can be written but is not there yet.
#[derive(Debug)]
pub(crate) struct Pending {
    file: NamedTempFile,
    path: PathBuf,
}

impl Pending {
    /// Prepares a file that is not there yet; one that is there is replaced with `force` alone.
    ///
    /// # Errors
    /// It is there already, or nothing can be written there.
    pub(crate) fn new_at(path: &Path, force: bool) -> Result<Self, CliError> {
        match path.symlink_metadata() {
            Ok(there) if there.is_dir() => {}
            Ok(there) if !there.is_file() && !there.is_symlink() => {
                return Err(CliError::usage(format!("{} is no file that can be replaced", path.display()))
                    .next("name a file with -o"));
            }
            Ok(_) if !force => {
                return Err(CliError::usage(format!("{} is there already", path.display()))
                    .because("it may hold a key or a token, which would be lost")
                    .next("name another file, or say --force to replace this one"));
            }
            _ => {}
        }
        Self::at(path)
    }

    /// Prepares a file, so that what must not fail later has failed already.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub(crate) fn at(path: &Path) -> Result<Self, CliError> {
        if path.is_dir() {
            return Err(CliError::usage(format!("{} is a directory", path.display())).next("name a file"));
        }
        // The parent of a bare name is empty: the working directory.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // Made with mode 0600, and renamed over what is there.
        let file = NamedTempFile::new_in(parent.unwrap_or_else(|| Path::new("."))).map_err(|cause| {
            CliError::failure(format!("cannot write {}", path.display()))
                .caused_by(&cause)
                .next("check that its directory exists, and that this user may write there")
        })?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Puts this there, in place of what was there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(self, content: impl AsRef<[u8]>) -> Result<(), CliError> {
        let Self { mut file, path } = self;
        let written = file
            .write_all(content.as_ref())
            .and_then(|()| file.as_file().sync_all())
            .and_then(|()| file.persist(&path).map(drop).map_err(|error| error.error));
        written
            .map_err(|cause| CliError::failure(format!("cannot write {}", path.display())).caused_by(&cause))
    }
}

/// Makes a directory for its user alone, if it is not there.
///
/// # Errors
/// It cannot be made.
pub(crate) fn directory(path: &Path) -> Result<(), CliError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(|cause| CliError::failure(format!("cannot make {}", path.display())).caused_by(&cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_private_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jwt");
        std::fs::write(&path, "old").unwrap();
        let pending = Pending::at(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        pending.write("new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        #[cfg(unix)]
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777,
            0o600
        );
    }

    #[test]
    fn a_file_that_is_there_is_replaced_with_force_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        drop(Pending::new_at(&path, false).unwrap());
        std::fs::write(&path, "a key").unwrap();
        let error = Pending::new_at(&path, false).unwrap_err().to_string();
        assert!(error.contains("is there already") && error.contains("--force"), "{error}");
        Pending::new_at(&path, true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a key");
        Pending::new_at(&path, true).unwrap().write("new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink("nowhere", &link).unwrap();
            assert!(Pending::new_at(&link, false).unwrap_err().to_string().contains("is there already"));
            let device = Pending::new_at(Path::new("/dev/null"), true).unwrap_err().to_string();
            assert!(device.contains("no file that can be replaced"), "{device}");
        }
    }

    #[test]
    fn where_nothing_can_be_written_is_told_before_anything_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let error = Pending::at(&folder.path().join("no/x")).unwrap_err().to_string();
        assert!(
            error.contains("cannot write") && error.contains("check that its directory exists"),
            "{error}"
        );
        assert!(Pending::at(folder.path()).unwrap_err().to_string().contains("is a directory"));
    }
}
