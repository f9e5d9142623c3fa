//! The flags of each interpreter, from its manual.

use super::{Flags, Letters};

pub(crate) const NODE: Flags = Flags {
    value: "-r --require --import --loader --experimental-loader -C --conditions --env-file \
        --env-file-if-exists --title --icu-data-dir --openssl-config --redirect-warnings \
        --trace-event-categories --trace-event-file-pattern --diagnostic-dir --report-dir \
        --report-directory --report-filename --heapsnapshot-signal --cpu-prof-dir \
        --cpu-prof-name --heap-prof-dir --input-type --unhandled-rejections \
        --dns-result-order --disable-warning --max-http-header-size --watch-path \
        --inspect-port --experimental-sea-config --experimental-default-type --secure-heap \
        --secure-heap-min --tls-cipher-list --tls-keylog --disable-proto --test-reporter \
        --allow-fs-read --allow-fs-write --cpu-prof-interval --heap-prof-interval \
        --localstorage-file --v8-pool-size --stack-trace-limit",
    runs: "--run",
    code: "-e --eval -p --print -pe -",
    bare: "-i --interactive -c --check --test --watch --inspect --inspect-brk --inspect-wait \
        --no-* --trace-* --experimental-* --harmony* --enable-source-maps --expose-gc \
        --preserve-symlinks* --abort-on-uncaught-exception --prof --cpu-prof --heap-prof \
        --use-openssl-ca --use-bundled-ca --use-system-ca --throw-deprecation \
        --pending-deprecation --frozen-intrinsics --enable-fips --force-fips --permission \
        --tls-min-* --tls-max-* --report-on-* --report-uncaught-exception --jitless",
    letters: None,
};

pub(crate) const PYTHON: Flags = Flags {
    value: "--check-hash-based-pycs",
    runs: "",
    code: "",
    bare: "",
    letters: Some(Letters {
        value: "WXQ",
        runs: "m",
        code: "c",
        attached: "",
        bare: "bBdEhiIOPqRsSuvVx",
    }),
};

pub(crate) const JAVA: Flags = Flags {
    value: "-cp -classpath --class-path -p --module-path --upgrade-module-path --add-modules \
        --add-exports --add-opens --add-reads --limit-modules --patch-module \
        --enable-native-access --source --describe-module -d",
    runs: "-jar -m --module",
    code: "",
    bare: "-X* -D* -javaagent:* -agentlib:* -agentpath:* -ea* -da* -esa -dsa -enable* -disable* \
        -server -client -verbose* -splash:* -showversion --show-version --enable-preview \
        --show-module-resolution",
    letters: None,
};

pub(crate) const RUBY: Flags = Flags {
    value: "--encoding --external-encoding --internal-encoding --enable --disable",
    runs: "",
    code: "",
    bare: "--yjit* --rjit* --jit* --enable-* --disable-* --verbose --debug",
    letters: Some(Letters {
        value: "ICEr",
        runs: "",
        code: "e",
        attached: "iWTKx0Fl",
        bare: "acdhnpsSUvwy",
    }),
};

pub(crate) const PERL: Flags = Flags {
    value: "",
    runs: "",
    code: "",
    bare: "",
    letters: Some(Letters {
        value: "I",
        runs: "",
        code: "eE",
        attached: "iMm0lFDCdxV",
        bare: "acfhnpsStTuUvwWX",
    }),
};

pub(crate) const PHP: Flags = Flags {
    value: "--define --php-ini --docroot --server --zend-extension",
    runs: "--file",
    code: "--run --process-code",
    bare: "--no-php-ini --no-header --interactive",
    letters: Some(Letters {
        value: "dcztS",
        runs: "f",
        code: "rBRE",
        attached: "",
        bare: "aCeHhilmnqsvw",
    }),
};

pub(crate) const DENO: Flags = Flags {
    value: "-c --config --import-map --cert --location -L --log-level --seed --port --host --cwd",
    runs: "",
    code: "-",
    bare: "-A -R -W -N -E -S -q -r --allow-* --deny-* --unstable* --no-* --watch* --quiet \
        --cached-only --check* --inspect* --reload* --frozen* --lock* --node-modules-dir*",
    letters: None,
};

pub(crate) const BUN: Flags = Flags {
    value: "-r --preload --require --import -c --config --cwd --env-file --tsconfig-override -d \
        --define -l --loader --port --filter",
    runs: "",
    code: "-e --eval -p --print -",
    bare: "-b --bun -i --hot --watch --smol --inspect* --no-* --silent --if-present --prefer-*",
    letters: None,
};

pub(crate) const DOTNET: Flags = Flags {
    value: "--fx-version --roll-forward --additionalprobingpath --depsfile --runtimeconfig \
        --additional-deps -c --configuration -f --framework -r --runtime --arch --os \
        --launch-profile -v --verbosity",
    runs: "--project",
    code: "",
    bare: "--no-* --force --interactive",
    letters: None,
};

/// npx: `--package` is not the program.
pub(crate) const NPX: Flags = Flags {
    value: "-p --package -w --workspace --prefix",
    runs: "",
    code: "-c --call",
    bare: "-y --yes -q --quiet --no-* --silent",
    letters: None,
};

/// What runs a script instead of `node`: ts-node, tsx, nodemon.
pub(crate) const LOADER: Flags = Flags {
    value: "-r --require -P --project -C --compiler -O --compiler-options --import --loader \
        --tsconfig --cwd -w --watch -i --ignore -e --ext -x --exec -d --delay --env-file \
        --conditions",
    runs: "",
    code: "-p --print --eval",
    bare: "-T --transpile-only --esm --swc --files --respawn --inspect* --no-* -q --quiet -V \
        --verbose",
    letters: None,
};
