"""Parses Python files without running them and prints remarks: file, line and text, with tabs."""
import ast
import sys


def name(node):
    """Returns a dotted name, such as sys.exit."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return name(node.value) + "." + node.attr
    return ""


def constant(node):
    return node.value if isinstance(node, ast.Constant) else None


def is_utf8(call):
    values = [constant(one) for one in call.args]
    values += [constant(one.value) for one in call.keywords if one.arg == "encoding"]
    texts = [str(value).lower().replace("_", "-") for value in values if isinstance(value, str)]
    return not call.args and not call.keywords or "utf-8" in texts or "utf8" in texts


def mode(call):
    for one in call.keywords:
        if one.arg == "mode":
            return constant(one.value)
    return constant(call.args[1]) if len(call.args) > 1 else "r"


def handlers(tree):
    """Returns the names of signal handlers, and lambdas that are handlers."""
    names, lambdas = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name(node.func) in ("signal.signal", "signal"):
            if len(node.args) == 2:
                names.add(name(node.args[1]).split(".")[-1])
                if isinstance(node.args[1], ast.Lambda):
                    lambdas.append(node.args[1])
    return names, lambdas


def remarks(tree):
    names, inside = handlers(tree)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside += [n for n in ast.walk(tree) if isinstance(n, functions) and n.name in names]
    ends = {"sys.exit", "os._exit", "exit", "quit"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("decode", "encode"):
            if is_utf8(node):
                yield node.lineno, "." + node.func.attr + "('utf-8'): the content is bytes, not text"
        if name(node.func) in ("open", "io.open"):
            value = mode(node)
            if isinstance(value, str) and "b" not in value:
                yield node.lineno, "open in text mode changes bytes: use 'rb' or 'wb'"
    for function in inside:
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and name(node.func) in ends:
                yield node.lineno, name(node.func) + " in a signal handler: set a flag and return"


for path in sys.argv[1:]:
    try:
        with open(path, "rb") as file:
            found = list(remarks(ast.parse(file.read(), path)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        found = [(getattr(error, "lineno", None) or 0, "not valid Python: " + str(error))]
    except OSError as error:
        found = [(0, "cannot be read: " + str(error))]
    for line, text in sorted(set(found)):
        print(path, line, " ".join(text.split()), sep="\t")
