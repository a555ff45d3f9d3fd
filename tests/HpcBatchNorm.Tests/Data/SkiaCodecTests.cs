using System.Reflection;
using System.Runtime.InteropServices;
using HpcBatchNorm.Interop.Skia;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Our declarations of libSkiaSharp's C interface against those in the SkiaSharp assembly of the same version.</summary>
public sealed class SkiaCodecTests
{
    private static readonly Assembly SkiaSharp = typeof(SKCodec).Assembly;

    public static TheoryData<Type, string> Structs => new()
    {
        { typeof(SkiaCodec.ImageInfo), "SKImageInfoNative" },
        { typeof(SkiaCodec.Options), "SKCodecOptionsInternal" },
        { typeof(SkiaCodec.Rectangle), "SKRectI" },
        { typeof(SkiaCodec.Size), "SKSizeI" },
    };

    [Theory]
    [MemberData(nameof(Structs))]
    public void Struct_HasTheFieldsOfSkiaSharps(Type ours, string theirs) => Assert.Equal(
        Layout(SkiaSharp.GetType($"SkiaSharp.{theirs}", throwOnError: true)!), Layout(ours));

    [Fact]
    public void Functions_HaveTheParametersOfSkiaSharps()
    {
        Type api = SkiaSharp.GetType("SkiaSharp.SkiaApi", throwOnError: true)!;
        MethodInfo[] ours = [.. typeof(SkiaCodec).GetMethods(BindingFlags.Static | BindingFlags.NonPublic).Where(m => m.Name.StartsWith("sk_", StringComparison.Ordinal))];
        Assert.True(ours.Length > 10);
        foreach (MethodInfo method in ours)
        {
            MethodInfo theirs = api.GetMethod(method.Name, BindingFlags.Static | BindingFlags.NonPublic | BindingFlags.Public)
                ?? throw new InvalidOperationException($"SkiaSharp has no {method.Name}.");
            Assert.Equal(Signature(theirs), Signature(method));
        }
    }

    [Fact]
    public void Values_AreSkiaSharps()
    {
        Assert.Equal(SkiaCodec.Milestone, SkiaSharp.GetName().Version!.Minor);
        Assert.Equal(
            (SKEncodedImageFormat.Bmp, SKEncodedImageFormat.Jpeg, SKEncodedImageFormat.Png, SKEncodedImageFormat.Webp),
            ((SKEncodedImageFormat)SkiaFormat.Bmp, (SKEncodedImageFormat)SkiaFormat.Jpeg, (SKEncodedImageFormat)SkiaFormat.Png, (SKEncodedImageFormat)SkiaFormat.Webp));
        Assert.Equal(
            (SKCodecResult.Success, SKCodecResult.IncompleteInput, SKCodecResult.ErrorInInput),
            ((SKCodecResult)SkiaResult.Success, (SKCodecResult)SkiaResult.IncompleteInput, (SKCodecResult)SkiaResult.ErrorInInput));
        Assert.Equal((int)SKZeroInitialized.No, SkiaCodec.Options.Default.ZeroInitialized);
    }

    private static string Signature(MethodInfo method) =>
        $"{method.Name}({string.Join(", ", method.GetParameters().Select(p => Size(p.ParameterType)))}) {Size(method.ReturnType)}";

    private static IEnumerable<int> Layout(Type type) => type.GetFields(BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.Public).Select(f => Size(f.FieldType));

    private static int Size(Type type) => type switch
    {
        _ when type == typeof(void) => 0,
        _ when type.IsPointer => nint.Size,
        _ when type == typeof(bool) => 1,
        { IsEnum: true } => Size(type.GetEnumUnderlyingType()),
        _ => Marshal.SizeOf(type),
    };
}
