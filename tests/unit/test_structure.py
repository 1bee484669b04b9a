"""What keeps the package readable is counted: untyped parameters, private parts of other libraries, long files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import medqlora

PACKAGE = Path(medqlora.__file__).parent
TESTS = Path(__file__).parents[1]
#: rooms that meet Lightning's untyped interfaces
ADAPTERS = (
    "module.py",
    "datamodule.py",
    "callbacks/",
    "distributed/",
    "trainer/checkpoint_hooks.py",
    "compat/",
    "commands/lightning_cli.py",
)
#: explicit `Any` in signatures, all of them in these rooms
MOST_ANY = 12
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
#: names with an underscore that are public: NamedTuple's, and Python's own way to end a process
PUBLIC = {"_replace", "_asdict", "_fields", "_make", "_exit"}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def untyped(tree: ast.Module) -> Iterator[str]:
    """function(parameter) for each parameter whose annotation holds `Any`."""
    for function in functions(tree):
        every = function.args
        parameters = [*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg]
        for parameter in parameters:
            if parameter is not None and parameter.annotation is not None:
                names = {node.id for node in ast.walk(parameter.annotation) if isinstance(node, ast.Name)}
                if "Any" in names:
                    yield f"{function.name}({parameter.arg})"


def private_uses(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Attributes and imports with a leading underscore that this package does not define."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("medqlora"):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("_") and not name.startswith("__") and name not in own | PUBLIC:
                yield f"line {node.lineno}: {name}"


def own_names(trees: list[ast.Module]) -> set[str]:
    """Private names that the package itself defines or assigns."""
    found: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("self", "cls")
            ):
                found.add(node.attr)
    return found


def test_parameters_have_types_but_for_a_few_of_lightnings() -> None:
    found = {name_of(path): list(untyped(tree_of(path))) for path in FILES}
    elsewhere = {name: list_ for name, list_ in found.items() if list_ and not name.startswith(ADAPTERS)}
    assert not elsewhere
    assert sum(map(len, found.values())) <= MOST_ANY, {name: list_ for name, list_ in found.items() if list_}


def test_no_parameter_takes_the_module_the_data_or_the_trainer_untyped() -> None:
    named = ("(module)", "(data)", "(trainer)", "(pl_module)")
    found = [
        f"{name_of(path)}: {use}" for path in FILES for use in untyped(tree_of(path)) if use.endswith(named)
    ]
    assert not found


def test_private_parts_of_other_libraries_are_used_in_compat_alone() -> None:
    trees = {path: tree_of(path) for path in FILES}
    own = own_names(list(trees.values()))
    found = {
        name_of(path): uses
        for path, tree in trees.items()
        if not name_of(path).startswith("compat/") and (uses := list(private_uses(tree, own)))
    }
    assert not found


def test_files_and_functions_stay_small() -> None:
    every = [*FILES, *sorted(TESTS.rglob("*.py"))]
    long = {
        str(path): lines
        for path in every
        if (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert not long
    functions_ = {
        f"{name_of(path)}: {function.name}": lines
        for path in FILES
        for function in functions(tree_of(path))
        if (lines := (function.end_lineno or function.lineno) - function.lineno + 1) > MOST_FUNCTION_LINES
    }
    assert not functions_


def test_library_rooms_print_nothing() -> None:
    """Messages go through logging; commands print, and so do programs that are started as such."""
    printing = {
        name_of(path): [node.lineno for node in ast.walk(tree_of(path)) if _prints(node)]
        for path in FILES
        if not name_of(path).startswith(("commands/", "cli.py"))
    }
    allowed = ("utils/console.py", "profiling/worker.py", "config/reference.py")
    assert not {name: lines for name, lines in printing.items() if lines and name not in allowed}


def _prints(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
