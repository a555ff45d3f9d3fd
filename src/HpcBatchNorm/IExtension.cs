namespace HpcBatchNorm;

/// <summary>
/// What an assembly brings: a public class with a parameterless constructor that implements this lets <c>hpcbn</c> work with the assembly's layers and
/// networks. The command loads an assembly that it is told of, makes one object of every such class, and calls <see cref="Register"/> before it does
/// anything else. A program of one's own needs none of this: it registers for itself.
/// </summary>
public interface IExtension
{
    /// <summary>Registers the layers (<see cref="Layers.LayerTypes.Register"/>) and networks (<c>NetworkCatalog.Register</c>) of the assembly.</summary>
    void Register();
}
