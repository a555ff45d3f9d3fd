using System.CommandLine;
using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.Loader;

namespace HpcBatchNorm.Cli;

/// <summary>Assemblies that the user names, for the layers and networks they bring (<see cref="IExtension"/>).</summary>
internal static class UserAssemblies
{
    /// <summary>Files that every command loads, separated as the paths of <c>PATH</c> are.</summary>
    public const string Variable = "HBN_ASSEMBLIES";

    private const string NotInNativeCode = "A program that was compiled to native code refuses assemblies before it gets here; others are not trimmed.";

    // One command is one process, but tests run several commands in one: an assembly is loaded once.
    private static readonly Dictionary<string, Assembly> Loaded = new(StringComparer.Ordinal);

    /// <summary>What a command that is to be run next needs besides: an option for each file that this command named, each after a space; empty where it named none.</summary>
    public static string Again { get; private set; } = "";

    public static Option<string[]> CreateOption() => new("--assembly")
    {
        Description = $"Assembly with layers or networks of your own, loaded first; may be given several times ({Variable} does the same for every command)",
        HelpName = "FILE.dll",
        Recursive = true,
        AllowMultipleArgumentsPerToken = false,
    };

    /// <summary>Loads what the environment and the command name, and lets it register.</summary>
    /// <exception cref="UserErrorException">A file is missing, is no assembly, brings nothing, or fails; the message says which and why.</exception>
    public static void Load(IReadOnlyList<string> named)
    {
        Again = string.Concat(named.Select(n => $" --assembly {ShellWord.Quote(n)}"));
        string[] always = Environment.GetEnvironmentVariable(Variable)?.Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries) ?? [];
        foreach (string file in always.Concat(named).Select(Path.GetFullPath).Distinct())
        {
            if (!Loaded.ContainsKey(file))
            {
                Loaded.Add(file, Load(file));
            }
        }
    }

    [UnconditionalSuppressMessage("Trimming", "IL2026", Justification = NotInNativeCode)]
    [UnconditionalSuppressMessage("Trimming", "IL2062", Justification = NotInNativeCode)]
    [UnconditionalSuppressMessage("Trimming", "IL2072", Justification = NotInNativeCode)]
    private static Assembly Load(string file)
    {
        if (!File.Exists(file))
        {
            throw new UserErrorException($"There is no assembly '{file}'. Name the .dll that a build of your project has made.");
        }

        if (!RuntimeFeature.IsDynamicCodeSupported)
        {
            throw new UserErrorException($"'{file}' cannot be loaded: this hpcbn was compiled to native code, which takes no more assemblies. Use the one that runs on .NET (dotnet tool install hpcbn, or a build from source).");
        }

        try
        {
            Assembly assembly = new Context(file).LoadFromAssemblyPath(file);
            Type[] extensions = [.. assembly.GetExportedTypes().Where(t => t is { IsAbstract: false, IsInterface: false } && t.IsAssignableTo(typeof(IExtension)))];
            if (extensions.Length == 0)
            {
                throw new UserErrorException(
                    $"'{file}' brings nothing: no public class in it implements {typeof(IExtension).FullName}, whose Register makes layers and networks known.");
            }

            foreach (Type extension in extensions)
            {
                ((IExtension)Activator.CreateInstance(extension)!).Register();
            }

            return assembly;
        }
        catch (BadImageFormatException error)
        {
            throw new UserErrorException($"'{file}' is no .NET assembly: {error.Message}", error);
        }
        catch (Exception error) when (error is FileLoadException or FileNotFoundException or TypeLoadException or MissingMemberException)
        {
            throw new UserErrorException(
                $"'{file}' cannot be loaded: {error.Message} It must have been built for this version of HpcBatchNorm ({Version}), and what it needs besides lie beside it.", error);
        }
        catch (TargetInvocationException error)
        {
            throw new UserErrorException($"'{file}' fails while it is loaded: {error.InnerException?.Message ?? error.Message}", error);
        }
        catch (ArgumentException error)
        {
            throw new UserErrorException($"'{file}' cannot register what it brings: {error.Message}", error);
        }
    }

    private static string Version => typeof(IExtension).Assembly.GetName().Version?.ToString(3) ?? "";

    /// <summary>
    /// Finds what an assembly needs: what the command has, so that both mean the same layers, and all else beside the assembly.
    /// </summary>
    private sealed class Context(string file) : AssemblyLoadContext(Path.GetFileNameWithoutExtension(file))
    {
        private readonly AssemblyDependencyResolver _resolver = new(file);

        [UnconditionalSuppressMessage("Trimming", "IL2026", Justification = NotInNativeCode)]
        protected override Assembly? Load(AssemblyName name)
        {
            try
            {
                return Default.LoadFromAssemblyName(name);
            }
            catch (FileNotFoundException)
            {
                return _resolver.ResolveAssemblyToPath(name) is string path ? LoadFromAssemblyPath(path) : null;
            }
        }

        protected override nint LoadUnmanagedDll(string name) =>
            _resolver.ResolveUnmanagedDllToPath(name) is string path ? LoadUnmanagedDllFromPath(path) : 0;
    }
}
