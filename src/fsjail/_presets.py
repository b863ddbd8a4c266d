"""The named lists of denials that hold unless a configuration drops them by name.

Each is a deny list in gitignore syntax. No rule may be so wide that it hides ordinary source:
``secrets.py``, ``key.py`` and public keys stay readable.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


class Preset(NamedTuple):
    """A named deny list.

    Attributes:
        access: "read" (and with it writing), or "write" alone.
        patterns: its rules.
    """

    access: Literal["read", "write"]
    patterns: tuple[str, ...]


_SECRETS: Final = (
    # Environment files, but not the templates that stand in for them.
    ".env",
    ".env.*",
    "!.env.example",
    "!.env.sample",
    "!.env.template",
    "!.env.dist",
    "!.env.defaults",
    # Private keys and stores of keys; "!*.pub" because id_rsa* would take the public half too.
    "*.pem",
    "*.key",
    "*.ppk",
    "*.p12",
    "*.pfx",
    "*.p8",
    "*.jks",
    "*.jceks",
    "*.keystore",
    "*.kdb",
    "*.kdbx",
    "*.keychain",
    "*.keychain-db",
    "*.ovpn",
    "*.age-key",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "!*.pub",
    "ssh_host_*_key",
    "secring.*",
    # Folders of credentials.
    ".ssh/",
    ".gnupg/",
    ".aws/",
    ".azure/",
    ".kube/",
    ".oci/",
    "**/.config/gcloud/",
    "**/.config/gh/",
    "**/.config/op/",
    "**/.config/rclone/",
    "**/.config/sops/",
    ".password-store/",
    "**/.docker/config.json",
    "**/.cargo/credentials",
    "**/.cargo/credentials.toml",
    "**/.gem/credentials",
    "**/.bundle/config",
    "**/.m2/settings.xml",
    "**/.m2/settings-security.xml",
    "**/.gradle/gradle.properties",
    "**/.terraform.d/credentials.tfrc.json",
    # Files of credentials.
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".gitcookies",
    ".dockercfg",
    ".kubeconfig",
    "kubeconfig",
    ".pgpass",
    ".my.cnf",
    ".mylogin.cnf",
    ".s3cfg",
    ".boto",
    ".htpasswd",
    ".vault-token",
    ".vault_pass*",
    ".terraformrc",
    ".sentryclirc",
    "credentials.json",
    "credentials.yaml",
    "credentials.yml",
    "client_secret*.json",
    "service-account*.json",
    "service_account*.json",
    "application_default_credentials.json",
    "secrets.json",
    "secrets.toml",
    "secrets.yaml",
    "secrets.yml",
    ".secrets",
    ".secrets.*",
    "wp-config.php",
    # State that holds credentials in clear.
    "*.tfstate",
    "*.tfstate.*",
    "*.auto.tfvars",
    "terraform.tfvars",
    # Shell and client histories hold what was typed.
    ".bash_history",
    ".zsh_history",
    ".python_history",
    ".psql_history",
    ".mysql_history",
    ".node_repl_history",
    # Browsers' stores.
    "key4.db",
    "cookies.sqlite",
)

_VCS: Final = (
    # Hooks and configuration in here run code; history in here is the user's own undo.
    ".git",
    ".hg/",
    ".svn/",
    ".bzr/",
    ".jj/",
    "CVS/",
    ".gitmodules",
    ".gitconfig",
    ".hgrc",
    ".hgsub",
)

_TOOLCHAIN: Final = (
    # Run on entering a folder or on starting a shell.
    ".envrc",
    ".direnv/",
    ".mise.toml",
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".zlogout",
    ".kshrc",
    ".cshrc",
    ".tcshrc",
    ".login",
    "**/.config/fish/",
    ".inputrc",
    # Run by an editor, or by an agent, that opens the folder.
    ".vscode/",
    ".idea/",
    "*.code-workspace",
    ".vimrc",
    ".nvimrc",
    ".exrc",
    ".nvim.lua",
    ".dir-locals.el",
    ".devcontainer/",
    ".devcontainer.json",
    ".claude/",
    ".cursor/",
    ".windsurf/",
    ".gemini/",
    ".codex/",
    ".aider.conf.yml",
    ".mcp.json",
    "mcp.json",
    # Run by a service, with its credentials.
    "**/.github/workflows/",
    "**/.github/actions/",
    ".gitlab-ci.yml",
    ".circleci/",
    ".buildkite/",
    ".travis.yml",
    ".drone.yml",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    "Jenkinsfile",
    # Run by the next commit or the next interpreter.
    ".husky/",
    ".githooks/",
    ".pre-commit-config.yaml",
    "lefthook.yml",
    "sitecustomize.py",
    "usercustomize.py",
    # Loaded unasked by a debugger or a tool started in the folder.
    ".gdbinit",
    ".lldbinit",
    ".pdbrc",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pnpmfile.cjs",
    "**/.cargo/config",
    "**/.cargo/config.toml",
    ".bazelrc",
)

PRESETS: Final[dict[str, Preset]] = {
    "secrets": Preset("read", _SECRETS),
    "vcs": Preset("write", _VCS),
    "toolchain": Preset("write", _TOOLCHAIN),
}
