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
