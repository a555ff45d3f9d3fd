// A host with a plug-in loader: loads an application from a folder of its own and runs it, as a worker or a server does with its extensions.
using System.Reflection;
using System.Runtime.Loader;

PluginContext context = new(Path.GetFullPath(args[0]));
Assembly plugin = context.LoadFromAssemblyPath(context.Main);
object? answer = plugin.EntryPoint!.Invoke(null, [Array.Empty<string>()]);
return answer switch
{
    Task<int> task => await task,
    int code => code,
    _ => 1,
};

internal sealed class PluginContext(string main) : AssemblyLoadContext("plugin", isCollectible: false)
{
    private readonly AssemblyDependencyResolver _resolver = new(main);

    public string Main => main;

    protected override Assembly? Load(AssemblyName name) => _resolver.ResolveAssemblyToPath(name) is { } path ? LoadFromAssemblyPath(path) : null;

    protected override nint LoadUnmanagedDll(string name) => _resolver.ResolveUnmanagedDllToPath(name) is { } path ? LoadUnmanagedDllFromPath(path) : 0;
}
