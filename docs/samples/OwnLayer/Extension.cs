using HpcBatchNorm;

namespace OwnLayer;

/// <summary>Lets the command work with the layer: <c>hpcbn train --assembly OwnLayer.dll --model network.json</c>.</summary>
public sealed class Extension : IExtension
{
    /// <inheritdoc/>
    public void Register() => SwitchableNorm.Register();
}
