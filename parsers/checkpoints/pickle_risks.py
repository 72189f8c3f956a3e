"""How risky it would be to call what a pickle names: known to run code or to reach out, or on no list."""

from __future__ import annotations

from typing import Literal

__all__ = ["risk_of"]

#: Packages of which every name is dangerous, whatever stands below them: they run programs or code, read or write
#: files, reach the network, import by name, or take the interpreter apart. Collected from the manual of Python's
#: standard library and from what scanners of pickles were told of as bypasses; the list is not, and cannot be, whole:
#: what is on no list is `unknown`, not harmless.
_MODULES_TEXT = """
    os posix nt ntpath posixpath subprocess _posixsubprocess _winapi popen2 sys shutil tempfile fileinput
    socket _socket socketserver ssl _ssl http httplib httplib2 urllib urllib2 urllib3 requests aiohttp httpx ftplib
    smtplib poplib imaplib nntplib telnetlib xmlrpc webbrowser paramiko fsspec
    importlib imp _imp _frozen_importlib _frozen_importlib_external pkgutil runpy zipimport site ensurepip pip
    setuptools distutils venv
    codeop pdb bdb cProfile _lsprof timeit doctest pydoc unittest test.support lib2to3 idlelib
    pty _pyrepl pickle _pickle cPickle dill cloudpickle marshal shelve dbm
    ctypes _ctypes cffi gc inspect faulthandler multiprocessing asyncio _thread atexit
    _osx_support _aix_support sqlite3 cython pexpect
    torch.hub torch.jit torch.package torch._dynamo.guards torch._inductor torch.compiler torch.multiprocessing
    torch.utils.cpp_extension torch.utils.bottleneck torch.utils.collect_env torch.utils._config_module torch.fx
    torch.utils.data.datapipes torch.distributed.run torch.distributed.launch torch.distributed.elastic
    numpy.f2py numpy.testing numpy.distutils numpy.ctypeslib numpy.lib.npyio numpy.lib._npyio_impl
"""
#: Single names of modules that are not dangerous as a whole.
_NAMES_TEXT = """
    builtins.eval builtins.exec builtins.compile builtins.open builtins.getattr builtins.setattr builtins.delattr
    builtins.__import__ builtins.breakpoint builtins.input builtins.globals builtins.locals builtins.vars
    builtins.apply builtins.execfile builtins.file builtins.map builtins.filter builtins.exit builtins.quit
    code.InteractiveInterpreter code.InteractiveConsole code.interact code.compile_command profile.run profile.runctx
    profile.Profile trace.Trace commands.getoutput commands.getstatusoutput
    functools.reduce functools.partialmethod itertools.starmap
    operator.attrgetter operator.methodcaller operator.itemgetter operator.call
    _operator.attrgetter _operator.methodcaller _operator.itemgetter _operator.call
    types.FunctionType types.CodeType types.LambdaType types.MethodType types.ModuleType types.DynamicClassAttribute
    types.CellType types.new_class
    io.open io.open_code io.FileIO io.TextIOWrapper _io.open _io.open_code _io.FileIO codecs.open
    logging.FileHandler logging.config.fileConfig logging.config.dictConfig logging.config.listen
    logging.handlers.SocketHandler logging.handlers.HTTPHandler uuid._get_command_stdout platform.popen
    platform._syscmd_ver platform._syscmd_file pathlib.Path.open pathlib.Path.write_text pathlib.Path.write_bytes
    pathlib.Path.unlink
    torch.load torch.save torch.compile torch.serialization.load torch.serialization.save torch.storage.load
    torch.ops.load_library torch.classes.load_library torch.utils.model_zoo.load_url
    numpy.load numpy.save numpy.savetxt numpy.loadtxt numpy.fromfile numpy.genfromtxt numpy.memmap
    numpy.core.memmap.memmap numpy._core.memmap.memmap numpy.safe_eval
    pandas.read_pickle pandas.io.pickle.read_pickle pandas.eval pandas.core.computation.eval.eval
    joblib.load joblib.numpy_pickle.load yaml.load yaml.unsafe_load yaml.full_load
"""
#: Attributes by which a chain of names (`torch.serialization` and `os.system`) gets from a harmless module to another.
_STEPS_TEXT = """
    os posix nt sys subprocess builtins importlib socket shutil eval exec system popen __import__ __builtins__
    __globals__ __subclasses__ __dict__ __code__ __loader__ __spec__ __getattribute__ __reduce__ __reduce_ex__
    Popen check_output check_call run_path rmtree
"""

_MODULES, _NAMES, _STEPS = (frozenset(text.split()) for text in (_MODULES_TEXT, _NAMES_TEXT, _STEPS_TEXT))


def risk_of(module: str, name: str) -> Literal["dangerous", "unknown"]:
    """`dangerous` where the callable is known to run code or to reach files, network or imports, else `unknown`.

    `name` may be a chain of attributes, as protocol 4 allows.

    >>> risk_of("posix", "system"), risk_of("torch.serialization", "os.system"), risk_of("my.models", "Encoder")
    ('dangerous', 'dangerous', 'unknown')
    """
    whole = f"{module}.{name}"
    parts = whole.split(".")
    above = {".".join(parts[:n]) for n in range(1, min(len(parts), 8))}
    known = whole in _NAMES or not above.isdisjoint(_MODULES) or not above.isdisjoint(_NAMES)
    chain = name.split(".")
    through = len(chain) > 1 and not _MODULES.isdisjoint(chain[:-1])
    return "dangerous" if known or through or not _STEPS.isdisjoint(chain) else "unknown"
