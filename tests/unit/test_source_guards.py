"""What must not stand in the source: each rule closes a door that other projects of this kind have left open.

Rules are checked on the syntax tree of every file of the package, so that a comment or a text never trips them.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import appraiser

PACKAGE = Path(appraiser.__file__).parent
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

# May know the model package, and why.
KNOWS_PHI3_V = {
    "backbone.py": "the seam: everything else sees a model through it",
    "pretraining/pretrain.py": "makes the embedded model from a configuration, before there is anything to load",
    "pretraining/beginning.py": "sets the tower's first weights",
    "vllm_plugin.py": "registers the Auto classes in vLLM's processes",
    "pretraining/looking.py": "trains the tower and the projector without the decoder",
}
# `assert` is for our own mistakes only: python -O takes it away. Each one that stands, and why it guards nothing.
ASSERTS = {
    "phi3_v/image_processing_phi3_v.py": "two functions of ours must agree on a size",
}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute, '' for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else node.attr
    return ""


def imports(tree: ast.AST, name: str) -> set[str]:
    """Every imported module, and every name taken from one, with relative imports resolved; TYPE_CHECKING too."""
    package = ["appraiser", *Path(name).parent.parts]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(dotted(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def modules_with(modules: set[str], *wanted: str) -> set[str]:
    return {module for module in modules for want in wanted if module == want or module.startswith(want + ".")}


def test_the_guards_look_at_the_whole_package():
    assert len(FILES) > 40
    assert {"cli/app.py", "data/fetch.py", "phi3_v/modeling_phi3_v.py", "training/trainer.py"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_unpickled(name):
    assert not modules_with(
        imports(TREES[name], name), "pickle", "cPickle", "shelve", "marshal", "dill", "joblib", "cloudpickle"
    )
    for function, call in calls(TREES[name]):
        assert function not in ("torch.load", "torch.save", "np.load", "numpy.load", "pd.read_pickle"), function
        assert not any(keyword.arg in ("allow_pickle", "weights_only") for keyword in call.keywords), function


@pytest.mark.parametrize("name", FILES)
def test_yaml_is_read_by_the_safe_loader_alone(name):
    for function, _ in calls(TREES[name]):
        if function.startswith("yaml."):
            assert function in ("yaml.safe_load", "yaml.safe_dump"), function


@pytest.mark.parametrize("name", FILES)
def test_no_code_of_others_is_run_and_no_shell_is_opened(name):
    for function, call in calls(TREES[name]):
        assert function not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), function
        assert not function.startswith(("os.spawn", "os.exec", "pty.", "commands.")), function
        for keyword in call.keywords:
            assert keyword.arg != "trust_remote_code", function
            is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            assert not (keyword.arg == "shell" and is_true), function
    texts = [
        node.value for node in ast.walk(TREES[name]) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not any(text == "trust_remote_code" for text in texts)
    assert not modules_with(imports(TREES[name], name), "transformers.dynamic_module_utils")


def test_asserts_guard_nothing():
    found = {name for name, tree in TREES.items() if any(isinstance(node, ast.Assert) for node in ast.walk(tree))}
    assert found <= set(ASSERTS), "raise an error instead: python -O removes assert"


def test_pictures_are_decoded_in_one_module():
    openers = {
        "Image.open",
        "PIL.Image.open",
        "Image.frombytes",
        "Image.frombuffer",
        "ImageFile.Parser",
        "imageio.imread",
    }
    found = {name for name, tree in TREES.items() for function, _ in calls(tree) if function in openers}
    assert found == {"data/pictures.py"}
    assert not any("LOAD_TRUNCATED_IMAGES" in dotted(node) for tree in TREES.values() for node in ast.walk(tree))
    assert not any(modules_with(imports(tree, name), "cv2", "imageio", "skimage") for name, tree in TREES.items())


def test_addresses_are_opened_in_one_module():
    clients = (
        "httpx",
        "httpx2",
        "requests",
        "aiohttp",
        "urllib.request",
        "urllib3",
        "http.client",
        "ftplib",
        "socket",
        "wget",
    )
    found = {name for name, tree in TREES.items() if modules_with(imports(tree, name), *clients)}
    # verify asks the one server that the user names, in a module that does nothing else.
    assert found == {"data/fetch.py", "serving/run.py", "verifying/client.py"}
    # The service listens; it does not call.
    assert modules_with(imports(TREES["serving/run.py"], "serving/run.py"), *clients) == {"socket"}
    assert not any(function.rpartition(".")[2].startswith(("connect", "create_conn", "send")) for function, _ in
                   calls(TREES["serving/run.py"]))  # fmt: skip


def test_the_fetching_module_takes_nothing_from_the_environment():
    made = [call for function, call in calls(TREES["data/fetch.py"]) if function.startswith("httpx.Async")]
    assert [dotted(call.func) for call in made] == ["httpx.AsyncHTTPTransport"]
    trust_env = next(keyword.value for keyword in made[0].keywords if keyword.arg == "trust_env")
    assert isinstance(trust_env, ast.Constant)
    assert trust_env.value is False


def test_the_client_of_verify_takes_nothing_from_the_environment_and_follows_nobody():
    made = [call for function, call in calls(TREES["verifying/client.py"]) if function.startswith("httpx.")]
    clients = [call for call in made if dotted(call.func) not in ("httpx.Timeout", "httpx.URL")]
    assert [dotted(call.func) for call in clients] == ["httpx.Client"]
    given = {keyword.arg: keyword.value for keyword in clients[0].keywords}
    for name in ("trust_env", "follow_redirects"):
        assert isinstance(given[name], ast.Constant)
        assert given[name].value is False
    assert dotted(given["timeout"]) == "TIMEOUT"


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("phi3_v/")])
def test_only_the_seam_and_the_maker_of_the_embedded_model_know_the_model_package(name):
    if modules_with(imports(TREES[name], name), "appraiser.phi3_v"):
        assert name in KNOWS_PHI3_V


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("phi3_v/")])
def test_the_model_package_knows_nothing_of_the_rest(name):
    own = modules_with(imports(TREES[name], name), "appraiser")
    assert {module for module in own if not module.startswith("appraiser.phi3_v")} <= {"appraiser"}
    assert "from appraiser import" not in FILES[name].read_text(encoding="utf-8")


# Folder or module -> what it may never import. cli knows everyone and nobody knows cli.
FORBIDDEN = {
    "data/": ["appraiser.training", "appraiser.evaluation", "appraiser.predict", "appraiser.cli"],
    "data/samples/": ["appraiser.backbone", "torch", "transformers"],
    "training/": ["appraiser.cli", "appraiser.demo", "appraiser.exporting"],
    "evaluation/": ["appraiser.cli", "appraiser.demo", "appraiser.training", "appraiser.exporting"],
    "exporting/": ["appraiser.cli", "appraiser.demo", "appraiser.verifying"],
    "verifying/": ["appraiser.cli", "appraiser.demo", "appraiser.evaluation", "appraiser.serving"],
    "predicting/": ["appraiser.cli", "appraiser.evaluation", "appraiser.training"],
    "serving/": ["appraiser.cli", "appraiser.evaluation", "appraiser.training", "appraiser.phi3_v"],
    "predict.py": ["appraiser.cli", "appraiser.evaluation", "appraiser.training"],
    "adapters.py": [
        "appraiser.data",
        "appraiser.training",
        "appraiser.predict",
        "appraiser.evaluation",
        "appraiser.cli",
    ],
    "backbone.py": [
        "appraiser.data",
        "appraiser.training",
        "appraiser.predict",
        "appraiser.evaluation",
        "appraiser.cli",
    ],
    "config.py": ["appraiser.data", "appraiser.training", "appraiser.backbone", "torch", "transformers"],
    "errors.py": ["appraiser", "torch", "transformers"],
    "data/records.py": ["appraiser.backbone", "torch"],
    "data/pictures.py": ["appraiser.backbone", "torch"],
    "data/task.py": ["appraiser.backbone", "torch"],
}


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_go_one_way(part):
    names = [name for name in FILES if name == part or (part.endswith("/") and name.startswith(part))]
    assert names
    for name in names:
        assert not modules_with(imports(TREES[name], name), *FORBIDDEN[part]), name


def test_nobody_knows_the_command_line_but_its_own_parts():
    found = {name for name, tree in TREES.items() if modules_with(imports(tree, name), "appraiser.cli")}
    assert {name for name in found if not name.startswith("cli/")} <= {"__main__.py"}


@pytest.mark.parametrize("name", FILES)
def test_packages_that_are_not_needed_are_not_imported(name):
    assert not modules_with(imports(TREES[name], name), "torchvision", "timm", "flash_attn")


def test_no_module_is_called_utils():
    words = {"utils", "util", "helpers", "common", "misc"}
    assert not [name for name in FILES if words & set(re.split(r"[/_.]", name))]


@pytest.mark.parametrize("name", FILES)
def test_the_environment_is_read_by_the_command_line_alone(name):
    reads = [function for function, _ in calls(TREES[name]) if function in ("os.getenv", "os.environ.get")]
    # W&B takes the folder of files that wait for their upload from the environment and from nowhere else.
    assert (
        not reads
        or name.startswith("cli/")
        or name
        in (
            "demo.py",
            "evaluation/wandb_table.py",
            "training/tracking.py",
            "training/ranks.py",  # torchrun tells a process its rank in no other way
        )
    )


def test_every_third_party_package_that_is_imported_is_declared():
    import tomllib

    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    declared = {re.split(r"[<>=!~\[; ]", name)[0].lower().replace("-", "_") for name in listed}
    known_as = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit_learn"}
    used = {module.split(".")[0] for name, tree in TREES.items() for module in imports(tree, name)}
    used -= {"appraiser", "__future__", "", *sys.stdlib_module_names}
    assert {known_as.get(name, name) for name in used} <= declared


def test_importing_the_package_and_the_command_line_loads_neither_torch_nor_transformers():
    code = (
        "import sys, appraiser, appraiser.cli, appraiser.config, appraiser.errors; "
        "print(sorted({'torch', 'transformers', 'datasets', 'pyarrow', 'sklearn', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
